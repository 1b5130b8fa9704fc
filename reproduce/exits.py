"""Exit statuses of the ``reproduce`` command."""

OK, FAILED, BAD_INPUT = 0, 1, 2
