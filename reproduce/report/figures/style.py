"""How figures look: a colour for each family of strategies, a hatch for each ratio, files of both kinds."""

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

from reproduce.report.strategy_order import FAMILIES, family_and_percent

# Okabe and Ito's palette, which colour-blind readers can tell apart.
_COLOURS = {
    "ALL": "#9a9a9a",
    "LoRA": "#e69f00",
    "INT": "#56b4e9",
    "BOT": "#009e73",
    "TOP": "#f0e442",
    "ADT-L": "#0072b2",
    "ADT-H": "#d55e00",
}
_MARKERS = {"ALL": "*", "LoRA": "P", "INT": "D", "BOT": "o", "TOP": "s", "ADT-L": "v", "ADT-H": "^"}
_OTHER_COLOURS = ("#cc79a7", "#7f5fa8", "#8c6d46", "#3d3d3d")
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
    # A name with a dollar sign is a name, not a formula.
    "text.parse_math": False,
}


@contextmanager
def style() -> Iterator[None]:
    """The settings under which figures are drawn and saved; others' settings stay as they were."""
    with matplotlib.rc_context(_RC):
        yield


def colour(strategy: str, families: Iterable[str] = ()) -> str:
    """A family's colour; families outside the paper take theirs by their place in ``families``."""
    family, _ = family_and_percent(strategy)
    if family in _COLOURS:
        return _COLOURS[family]
    others = [name for name in families if name not in _COLOURS]
    place = others.index(family) if family in others else 0
    return _OTHER_COLOURS[place % len(_OTHER_COLOURS)]


def hatch(strategy: str) -> str:
    """The hatch that tells a ratio without colour; ALL has its own."""
    family, percent = family_and_percent(strategy)
    if family == "ALL":
        return _BASELINE_HATCH
    if percent is None:
        return ""
    return next((mark for limit, mark in _HATCHES if percent < limit), _HATCHES[-1][1])


def marker(strategy: str) -> str:
    """The marker that tells a family without colour."""
    return _MARKERS.get(family_and_percent(strategy)[0], "d")


def families_of(strategies: Iterable[str]) -> list[str]:
    """The families that occur: the paper's first, in its order."""
    found = {family_and_percent(name)[0] for name in strategies}
    return [f for f in FAMILIES if f in found] + sorted(found - set(FAMILIES))


def family_handles(strategies: Iterable[str]) -> list[Patch]:
    """Legend entries, one for each family."""
    names = families_of(strategies)
    return [
        Patch(facecolor=colour(name, names), edgecolor=INK, linewidth=0.6, hatch=hatch(name), label=name)
        for name in names
    ]


def plain(axes: Axes, *, grid: str) -> None:
    """Light horizontal (``grid="y"``) or vertical (``"x"``) grid lines, no box.

    Few ticks, and labels at a fixed distance: to draw ticks, and to measure them, takes most of the time.
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
        # Hardly larger than at the highest level, in a third of the time.
        figure.savefig(png, dpi=120, metadata={"Software": None}, pil_kwargs={"compress_level": 1})
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(svg, metadata=nothing)
        dated = {"CreationDate": None, "Creator": None, "Producer": None}
        figure.savefig(stem.with_suffix(".pdf"), metadata=dated)
    return png, svg
