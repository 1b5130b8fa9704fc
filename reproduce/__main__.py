"""``python -m reproduce`` is the ``reproduce`` command."""

from reproduce.cli.app import main

main(prog_name="reproduce")
