"""One picture of all results: for each ratio its median, its lowest and highest value, and the ideal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter

from reproduce.bench.results import Result
from reproduce.report.figures.style import BLUE, GREEN, INK, MUTED, RED, canvas, plain, save, style

_COLOURS = (BLUE, RED, GREEN, INK)
_MARKERS = ("o", "s", "D", "^")
_WIDTH, _ROW, _PANEL = 8.0, 0.24, 0.95  # inches
_CHARACTERS = 34  # of a row's name in one line


def draw(results: Sequence[Result], stem: Path) -> tuple[Path, Path]:
    """Write the picture as PNG, SVG and PDF; the first two paths."""
    rows = [len({row.name for row in result.rows}) for result in results]
    with style():
        figure = canvas(_WIDTH, sum(_PANEL + _ROW * n for n in rows))
        figure.set_layout_engine("constrained")
        panels = figure.subplots(
            len(results), 1, squeeze=False, height_ratios=[_PANEL + _ROW * n for n in rows]
        )
        for axes, result in zip(panels[:, 0], results, strict=True):
            _panel(axes, result)
    return save(figure, stem)


def _panel(axes: Axes, result: Result) -> None:
    names = list(dict.fromkeys(row.name for row in result.rows))
    series = list(dict.fromkeys(row.series for row in result.rows))
    plain(axes, grid="x")
    if result.benchmark.logarithmic:
        axes.set_xscale("log")
        for ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            ticks(LogFormatter(minor_thresholds=(1, 0.4)))
    axes.axvline(1.0, color=MUTED, linewidth=0.8, zorder=1)
    for row in result.rows:
        at = series.index(row.series)
        # Several series stand beside each other on one line.
        y = names.index(row.name) + (at - (len(series) - 1) / 2) * 0.6 / len(series)
        colour, marker = _COLOURS[at % len(_COLOURS)], _MARKERS[at % len(_MARKERS)]
        axes.plot([row.low, row.high], [y, y], color=colour, linewidth=1.4, zorder=2)
        axes.plot([row.median], [y], marker, color=colour, markersize=4.5, zorder=3)
        if row.ideal is not None:
            axes.plot([row.ideal], [y], "|", color=INK, markersize=9, zorder=4)
    axes.set_yticks(range(len(names)), [textwrap.fill(name, _CHARACTERS) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(result.benchmark.ratio)
    axes.set_title(result.benchmark.name, loc="left", fontsize=9, fontweight="bold")
    handles = [
        axes.plot(
            [],
            [],
            _MARKERS[at % len(_MARKERS)],
            color=_COLOURS[at % len(_COLOURS)],
            markersize=4.5,
            label=name,
        )[0]
        for at, name in enumerate(series)
        if name
    ]
    if any(row.ideal is not None for row in result.rows):
        handles += axes.plot([], [], "|", color=INK, markersize=9, label="ideal")
    if handles:
        axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
