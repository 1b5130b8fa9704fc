"""The benchmarks of ``reproduce bench``: each a ratio of two things measured in one run, in alternating pairs."""
