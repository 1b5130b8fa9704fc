"""Sentences and tables on the terminal, wrapped at words there; lines stay whole where output goes to a file.

Names and error messages come from elsewhere: their control characters are shown, not sent to the terminal.
"""

from __future__ import annotations

import sys
import textwrap
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lfreeze.streams import visible

# No table is wider; where output goes to a file, none is folded.
_UNLIMITED = 10_000


def say(text: str, *, indent: int = 0, err: bool = False) -> None:
    """Print a sentence, in one line but for wrapping.

    Args:
        indent: columns by which further lines start later than the first.
        err: print to standard error.
    """
    stream = sys.stderr if err else sys.stdout
    text = visible(text)
    if stream.isatty():
        start = len(text) - len(text.lstrip()) + indent
        # Paths and commands stay whole, so that they can be copied.
        text = textwrap.fill(
            text,
            Console(stderr=err).width,
            subsequent_indent=" " * start,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        )
    print(text, file=stream)


class PlainTable(Table):
    """A table whose cells are text as it is, without rich's markup."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Add a row of strings or texts with a style; a cell may have several lines."""
        shown = [
            "\n".join(map(visible, cell.split("\n"))) if isinstance(cell, str) else cell for cell in cells
        ]
        super().add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in shown), **options)


def show(table: Table) -> None:
    """Print a table: as wide as the terminal at most, and in a file as wide as its content."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_UNLIMITED)
    with console.capture() as capture:
        console.print(table)
    # Each cell of the last column is padded to the longest.
    print("\n".join(line.rstrip() for line in capture.get().rstrip("\n").splitlines()))
