"""Exit statuses of the ``reproduce`` command."""

OK, FAILED, BAD_INPUT = 0, 1, 2
# To which a signal's number is added, as a shell does.
SIGNALLED = 128
