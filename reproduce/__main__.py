"""``python -m reproduce`` is the ``reproduce`` command."""

from reproduce.cli import main

main(prog_name="reproduce")
