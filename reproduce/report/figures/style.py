"""How figures look: a colour and a marker for each family of strategies, a hatch for each ratio."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from lfreeze.strategy import kinds
from reproduce.report.strategy_order import BASELINE, family_of, kind_and_percent, strategies_in_order

RED, GREEN, BLUE = "#d8434e", "#2ca27d", "#3a87c8"
# The hues of the paper's Figure 4, in tones that colour-blind readers can distinguish. Other families get one
# of ``_OTHER_COLOURS``, so that a new kind of strategy needs no entry here.
_COLOURS = {
    "ALL": "#b3b3b3",
    "LoRA": "#c3a5e0",
    "INT": RED,
    "BOT": BLUE,
    "TOP": GREEN,
    "ADT-L": "#f0e442",
    "ADT-H": "#f08a24",
}
_MARKERS = {"ALL": "*", "LoRA": "P", "INT": "D", "BOT": "o", "TOP": "s", "ADT-L": "v", "ADT-H": "^"}
_OTHER_COLOURS = ("#7fcdee", "#5b3f8c", "#8c6d46", "#3d3d3d")
_UNKNOWN_COLOUR = "#c9ced3"  # of kinds that are not installed here
_OTHER_MARKER = "d"
# From the lowest ratio up: (below this percentage, hatch).
_HATCHES = ((30.0, ""), (40.0, "...."), (60.0, "////"), (100.0, "xxxx"))
_BASELINE_HATCH = "\\\\\\\\"

INK = "#24292f"
MUTED = "#6e7781"
GRID = "#d8dee4"

_RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#8c959f",
    "axes.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "hatch.linewidth": 0.6,
    "svg.fonttype": "path",
    "svg.hashsalt": "lfreeze",
    # A dollar sign in a name does not start a formula.
    "text.parse_math": False,
}


@contextmanager
def style() -> Iterator[None]:
    """Draw and save figures with the report's settings, without changing matplotlib's global ones."""
    with matplotlib.rc_context(_RC):
        yield


def colour(strategy: str, families: Iterable[str] = ()) -> str:
    """The colour of a strategy's family; see ``family_colour``."""
    return family_colour(family_of(strategy), families)


def family_colour(family: str, families: Iterable[str] = ()) -> str:
    """A family's own colour, or one chosen by its position among the other ``families`` of the figure."""
    if family in _COLOURS:
        return _COLOURS[family]
    installed = {kind.family for kind in kinds().values()}
    if family not in installed:
        return _UNKNOWN_COLOUR
    others = [name for name in families if name in installed and name not in _COLOURS]
    place = others.index(family) if family in others else 0
    return _OTHER_COLOURS[place % len(_OTHER_COLOURS)]


def hatch(strategy: str) -> str:
    """The hatch that shows a ratio without colour; the baseline has its own."""
    if strategy == BASELINE:
        return _BASELINE_HATCH
    _, percent = kind_and_percent(strategy)
    if percent is None:
        return ""
    return next((mark for limit, mark in _HATCHES if percent < limit), _HATCHES[-1][1])


def marker(strategy: str) -> str:
    """The marker that shows a strategy's family without colour."""
    return family_marker(family_of(strategy))


def family_marker(family: str) -> str:
    return _MARKERS.get(family, _OTHER_MARKER)


def families_of(strategies: Iterable[str]) -> list[str]:
    """The families that occur, in the order of their first strategies."""
    return list(dict.fromkeys(family_of(name) for name in strategies_in_order(strategies)))


def family_handles(strategies: Iterable[str]) -> list[Patch]:
    """Legend entries, one for each family."""
    names = families_of(strategies)
    hatches = {family_of(BASELINE): _BASELINE_HATCH}
    return [
        Patch(
            facecolor=family_colour(name, names), edgecolor=INK, linewidth=0.6, hatch=hatches.get(name, ""),
            label=name,
        )
        for name in names
    ]  # fmt: skip


def plain(axes: Axes, *, grid: str) -> None:
    """Light horizontal (``grid="y"``) or vertical (``"x"``) grid lines, no box.

    Ticks are few and labels stand at a fixed distance, since drawing and measuring ticks takes most of
    the time that a figure takes.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color=GRID, linewidth=0.7)  # type: ignore[arg-type]
    axes.tick_params(length=0, left=False, bottom=False)
    for axis in (axes.xaxis, axes.yaxis):
        if isinstance(axis.get_major_locator(), MaxNLocator):
            axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


def canvas(width: float, height: float) -> Figure:
    """An empty white figure, in inches."""
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write ``stem`` as PNG, SVG and PDF, and return the first two; the same figure gives the same bytes."""
    png, svg = stem.with_suffix(".png"), stem.with_suffix(".svg")
    with style():
        # Level 1 takes a third of the time of level 9 and gives files that are hardly larger.
        figure.savefig(png, dpi=120, metadata={"Software": None}, pil_kwargs={"compress_level": 1})
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(svg, metadata=nothing)
        dated = {"CreationDate": None, "Creator": None, "Producer": None}
        figure.savefig(stem.with_suffix(".pdf"), metadata=dated)
    return png, svg
