"""The specification of a figure: its numbers, the function that draws them, its caption."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from matplotlib.figure import Figure

from reproduce.report.analysis.report_data import ReportData
from reproduce.report.formatting import n_is

Compute = Callable[[ReportData], pl.DataFrame]
Draw = Callable[[pl.DataFrame], Figure]


@dataclass(frozen=True)
class FigureSpec:
    """One figure of the report.

    Attributes:
        name: stem of its files: ``figure_<n>`` for the paper's own.
        compute: the numbers drawn; a column ``n`` counts the trials or experiments behind each row, and
            a figure whose ``n`` are all 0 is omitted.
        draw: a function at the top level of its module, so that a worker process can import it.
        caption: what to look for, and every n; from the report's data and the numbers drawn.
    """

    name: str
    title: str
    compute: Compute
    draw: Draw
    caption: Callable[[ReportData, pl.DataFrame], str]


@dataclass(frozen=True)
class RenderedFigure:
    """A figure as the page shows it; ``png`` and ``svg`` are two of its files."""

    name: str
    title: str
    caption: str
    alt: str
    png: Path
    svg: Path

    @property
    def heading(self) -> str:
        """``Figure 3. Accuracy``; the title alone for figures that are not in the paper."""
        number = self.name.removeprefix("figure_")
        return f"Figure {number}. {self.title}" if number != self.name else self.title


def from_trials(compute: Callable[[pl.DataFrame], pl.DataFrame]) -> Compute:
    """Adapt a function that needs only the trial rows."""
    return lambda report_data: compute(report_data.trials)


def n_range(counts: pl.Series) -> str:
    """``n = 3`` or ``n = 2 to 5``."""
    low, high = min(counts), max(counts)
    return n_is(low) if low == high else f"{n_is(low)} to {high}"
