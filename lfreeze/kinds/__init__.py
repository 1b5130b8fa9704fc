"""The kinds of strategies, one file per arm; ``lfreeze.strategy.kinds`` imports all of them.

To add an arm, add a file here with a class that is decorated with ``lfreeze.strategy.register``. No
other file changes. These modules import torch inside functions only, so that strategies can be named
without loading it.
"""
