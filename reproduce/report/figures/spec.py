"""What a figure of the report is: its numbers, how they are drawn, what its caption says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from matplotlib.figure import Figure

from reproduce.report.analysis.report_data import Collected
from reproduce.report.formatting import n_is

Compute = Callable[[Collected], pl.DataFrame]
Draw = Callable[[pl.DataFrame], Figure]


@dataclass(frozen=True)
class Plot:
    """One figure of the report.

    Attributes:
        name: stem of its files: ``figure_<n>`` for the paper's own.
        compute: the numbers drawn; a column ``n`` counts the trials or experiments behind each row,
            and a figure without any is left out.
        draw: a function at the top level of its module, so that another process can be told to draw.
        caption: what to look at, and every n, from what was collected and the numbers drawn.
    """

    name: str
    title: str
    compute: Compute
    draw: Draw
    caption: Callable[[Collected, pl.DataFrame], str]


@dataclass(frozen=True)
class Picture:
    """A figure that was written; ``png`` and ``svg`` are two of its files."""

    name: str
    title: str
    caption: str
    alt: str
    png: Path
    svg: Path

    @property
    def heading(self) -> str:
        """``Figure 3. Accuracy``; the figures that the paper does not have go by their titles."""
        number = self.name.removeprefix("figure_")
        return f"Figure {number}. {self.title}" if number != self.name else self.title


def of_trials(compute: Callable[[pl.DataFrame], pl.DataFrame]) -> Compute:
    """For a figure whose numbers need the trial rows only."""
    return lambda found: compute(found.trials)


def runs(counts: pl.Series) -> str:
    """``n = 3`` or ``n = 2 to 5``."""
    low, high = min(counts), max(counts)
    return n_is(low) if low == high else f"{n_is(low)} to {high}"
