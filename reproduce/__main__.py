"""The ``reproduce`` command, also ``python -m reproduce``.

It imports nothing but the standard library, so that it can report a missing installation in one sentence.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from importlib.util import find_spec

from lfreeze.streams import output_required, prepare_streams
from reproduce.process import (
    SIGNALLED,
    end_at_once_on_signals,
    end_on_signals,
    ending_signal,
    interrupted_sentence,
)

# Packages of the extra ``reproduce``; an installation without it lacks some of them.
_REQUIRED = ("click", "polars", "pydantic", "ray", "rich")


def main() -> None:
    """Run the command line; exit status 2 where it cannot run at all."""
    prepare_streams()
    try:
        os.getcwd()
    except OSError:
        _refuse("the working folder no longer exists: change to another one")
    missing = [name for name in _REQUIRED if find_spec(name) is None]
    if missing:
        _refuse(
            f"the reproduce command needs {', '.join(missing)}, which are not installed: "
            "run pip install 'lfreeze[reproduce]'"
        )
    # At exit the interpreter collects garbage several times, over a second of work with torch and Ray loaded.
    # Registered first, so that it runs after every other handler.
    atexit.register(gc.freeze)
    end_on_signals()
    try:
        from reproduce.cli.app import main as run_command

        with output_required():
            run_command(prog_name="reproduce")
    except (KeyboardInterrupt, SystemExit) as end:
        number = ending_signal(None)
        if number is None or getattr(end, "code", None) == SIGNALLED + number:
            raise
        # The signal came before the command had begun or after it had ended.
        print(interrupted_sentence(number), file=sys.stderr)
        sys.exit(SIGNALLED + number)
    finally:
        end_at_once_on_signals()


def _refuse(reason: str) -> None:
    print(f"error: {reason}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
