"""Tests of lfreeze and of the experiment."""

import gc

# Collections of garbage take a quarter of the time of the imports; ``conftest.py`` enables them afterwards.
gc.disable()
