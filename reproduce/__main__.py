"""The ``reproduce`` command, also ``python -m reproduce``.

It imports nothing but the standard library, so that it can report a missing installation in one sentence.
"""

from __future__ import annotations

import atexit
import gc
import sys
from importlib.util import find_spec

# Packages of the extra ``reproduce``; an installation without it lacks some of them.
_REQUIRED = ("click", "polars", "pydantic", "ray", "rich")


def main() -> None:
    """Run the command line; exit status 2 if the experiment's dependencies are not installed."""
    missing = [name for name in _REQUIRED if find_spec(name) is None]
    if missing:
        print(
            f"error: the reproduce command needs {', '.join(missing)}, which are not installed: "
            "run pip install 'lfreeze[reproduce]'",
            file=sys.stderr,
        )
        sys.exit(2)
    # At exit the interpreter collects garbage several times, over a second of work with torch and Ray loaded.
    # Registered first, so that it runs after every other handler.
    atexit.register(gc.freeze)
    from reproduce.cli.app import main as run_command

    run_command(prog_name="reproduce")


if __name__ == "__main__":
    main()
