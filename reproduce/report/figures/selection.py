"""The figure of the layers that adaptive strategies froze."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reproduce.report.analysis.report_data import ReportData
from reproduce.report.analysis.selection import selection_data
from reproduce.report.figures.grid import legend, mark_panel
from reproduce.report.figures.spec import FigureSpec, from_trials, n_range
from reproduce.report.figures.style import INK, MUTED, canvas, colour, families_of, plain, style
from reproduce.report.strategy_order import strategies_in_order

# In inches: a row of the map, the columns next to it, the space above and below a panel.
_ROW, _LEFT, _GAP, _STRIP, _RIGHT = 0.27, 0.85, 0.3, 1.85, 0.2
_HEAD, _TITLE, _BELOW, _FOOT = 0.4, 0.34, 0.62, 0.5
_NARROWEST, _WIDEST, _CELL = 3.4, 6.6, 0.34  # of the map, and of one of its cells
# (minimum width of a cell, font size in points of its number).
_FONTS = ((0.27, 7.5), (0.195, 6.2), (0.16, 5.2))


def figure_selection(data: pl.DataFrame) -> Figure:
    """A panel for each model: how often each layer was frozen, decisiveness, agreement of seeds."""
    models = sorted(set(data["model"]))
    heights = [_ROW * data.filter(pl.col("model") == m)["strategy"].n_unique() for m in models]
    most = int(max(data["layer"]))
    inner = min(max(_CELL * most, _NARROWEST), _WIDEST)
    width = _LEFT + inner + 2 * (_GAP + _STRIP) + _RIGHT
    total = _HEAD + sum(heights) + len(models) * (_TITLE + _BELOW) + _FOOT
    families = families_of(data["strategy"])
    with style():
        figure = canvas(width, total)
        figure.text(
            0.12 / width,
            1 - 0.12 / total,
            "Layers frozen by adaptive strategies",
            fontsize=12,
            fontweight="bold",
            va="top",
        )
        top = total - _HEAD
        for panel, (model, height) in enumerate(zip(models, heights, strict=True)):
            top -= _TITLE + height
            lefts = (_LEFT, _LEFT + inner + _GAP, _LEFT + inner + 2 * _GAP + _STRIP)
            places = zip(lefts, (inner, _STRIP, _STRIP), strict=True)
            boxes = [(left / width, top / total, wide / width, height / total) for left, wide in places]
            parts = [figure.add_axes(box) for box in boxes]
            _panel(parts, model, data, families, inner)
            mark_panel(parts, panel, model, "")
            top -= _BELOW
    legend(
        figure,
        [
            Line2D([], [], marker="o", linestyle="", color=INK, markersize=5, label="measured (whiskers: quartiles)"),
            Line2D([], [], marker="|", linestyle="", color=INK, markersize=10, markeredgewidth=1.2,
                   label="evenly spread scores; layers drawn at random"),
        ],
    )  # fmt: skip
    return figure


def _panel(axes: list[Axes], model: str, data: pl.DataFrame, families: list[str], inner: float) -> None:
    here = data.filter(pl.col("model") == model)
    names = strategies_in_order(here["strategy"])
    shares = [here.filter(pl.col("strategy") == name).sort("layer")["share"].to_list() for name in names]
    rows = {row["strategy"]: row for row in here.unique("strategy", keep="first").to_dicts()}
    heat, decisive, agree = axes
    heat.set_title(f"{model} · frozen in % of trials", fontsize=9.5, loc="left", pad=6)
    _heat_map(heat, names, shares, families, inner)
    decisive.set_title("decisiveness", fontsize=9, loc="left", pad=6)
    agree.set_title("agreement of seeds", fontsize=9, loc="left", pad=6)
    decisive.set_xlabel("gap / range of scores")
    agree.set_xlabel("Jaccard overlap")
    for place, name in enumerate(names):
        row, ink = rows[name], colour(name, families)
        quartiles = (row["decisiveness_q25"], row["decisiveness_q75"])
        _mark(decisive, place, row["decisiveness"], row["even"], ink, quartiles)
        _mark(agree, place, row["agreement"], row["agreement_random"], ink)
    for strip in (decisive, agree):
        strip.set_xlim(-0.03, 1.03)
        strip.set_ylim(len(names) - 0.5, -0.5)
        strip.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"], fontsize=7.8)
        strip.set_yticks(range(len(names)), [""] * len(names))
        plain(strip, grid="both")


def _heat_map(
    axes: Axes, names: list[str], shares: list[list[float | None]], families: list[str], inner: float
) -> None:
    layers = len(shares[0])
    filled = np.array([[share or 0.0 for share in row] for row in shares])
    inks = np.array([to_rgb(colour(name, families)) for name in names])
    # From white to the family's colour, so that darker means more often in greyscale, too.
    colours = 1 - filled[:, :, None] * (1 - inks[:, None, :])
    axes.pcolormesh(
        np.arange(layers + 1) + 0.5, np.arange(len(names) + 1) - 0.5, colours, edgecolors="#d0d7de", linewidth=0.4
    )  # fmt: skip
    size = next((font for room, font in _FONTS if inner / layers >= room), None)
    for place, row in enumerate(shares):
        if row[0] is None:
            axes.text((layers + 1) / 2, place, "no result", ha="center", va="center", fontsize=7, color=MUTED)
            continue
        for layer, share in enumerate(row, 1) if size else ():
            bright = colours[place, layer - 1] @ (0.299, 0.587, 0.114)
            axes.text(
                layer, place, f"{100 * (share or 0):.0f}", ha="center", va="center_baseline", fontsize=size,
                color=INK if bright > 0.55 else "white",
            )  # fmt: skip
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    step = 1 if inner / layers >= 0.16 else 5
    axes.set_xticks([layer for layer in range(1, layers + 1) if layer % step == 0 or layer == 1])
    axes.set_xlabel("layer, from the input")
    axes.tick_params(length=0, labelsize=7.8)
    axes.spines[:].set_visible(False)


def _mark(
    axes: Axes,
    place: int,
    value: float | None,
    reference: float | None,
    ink: str,
    whiskers: tuple[float | None, float | None] = (None, None),
) -> None:
    """A dot with whiskers, and a bar at the reference value."""
    edge: dict[str, Any] = {"zorder": 4, "clip_on": False}
    if reference is not None:
        axes.plot(reference, place, marker="|", color=INK, markersize=11, markeredgewidth=1.2, zorder=3)
    if value is None:
        axes.text(0.5, place, "–", ha="center", va="center", color=MUTED)
        return
    low, high = whiskers
    if low is not None and high is not None:
        axes.plot([low, high], [place, place], color=INK, linewidth=1.1, **edge)
    axes.plot(
        value, place, marker="o", color=ink, markeredgecolor=INK, markeredgewidth=0.6, markersize=5.5, **edge
    )


def _caption(report_data: ReportData, data: pl.DataFrame) -> str:
    used = data.filter(pl.col("n") > 0)
    rows = used.unique(["model", "strategy"], maintain_order=True)
    pairs = rows.filter(pl.col("n_pairs") > 0)["n_pairs"]
    text = (
        "Dark cells are layers that were frozen for most tasks and seeds; a random choice would give each "
        "layer of a row the same share, the strategy's ratio. "
        f"{n_range(rows['n'])} (trials per row, over {n_range(rows['n_tasks'])} tasks and all seeds). Decisiveness "
        "is the gap in score between the frozen and the trained layers, divided by the range of all scores of "
        "the trial (median; whiskers are quartiles): 1 means two clear groups, and the bar marks the value for "
        "evenly spread scores. "
    )
    if not pairs.len():
        return text + "No task has two seeds to compare."
    return text + (
        "Agreement is the mean Jaccard overlap of the layers that two seeds froze on the same task "
        f"({n_range(pairs)}, pairs of seeds per row); the bar marks the value expected for random layers."
    )


FIGURES = (
    FigureSpec(
        "selection",
        "Layers frozen by adaptive strategies",
        from_trials(selection_data),
        figure_selection,
        _caption,
    ),
)
