"""Drawing of the paper's Figures 3 to 6, each from the frame that ``analysis.paper_figures`` computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reproduce.report.figures.grid import (
    BAR,
    WARNING,
    bars,
    legend,
    name_bars,
    no_result,
    panels,
    set_limits,
    whiskers,
)
from reproduce.report.figures.markers import gauges, place_labels
from reproduce.report.figures.style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    RED,
    canvas,
    colour,
    families_of,
    family_colour,
    family_handles,
    hatch,
    plain,
    style,
)
from reproduce.report.formatting import change, memory_unit, plural
from reproduce.report.strategy_order import BASELINE, experiments, strategies_in_order

_GAUGE = "Half-disc: the filled part is the share of layers that train (LoRA: of parameters)."
_PERCENT = f"Percentages: change of training memory, the coloured part, against {BASELINE}."
SHARED = "▲ Speed was measured while other trials used the same device; compare step times with care."
_STATIC = "#e6e8eb"
_DASHED = (0, (5, 2))
# The lines of the paper's Figure 3: name, multiple of the standard deviation, colour.
_BASELINE_LINES = (("mean", 0, RED), ("mean − σ", -1, BLUE), ("mean + σ", 1, GREEN))


def figure_3(data: pl.DataFrame) -> Figure:
    """Validation accuracy by strategy, mean and standard deviation over seeds (the paper's Figure 3)."""
    pairs = experiments(data)
    strategies = strategies_in_order(data["strategy"])
    families = families_of(strategies)
    figure, grid = panels(pairs, bars=len(strategies), height=2.55, below=0.75, title="Validation accuracy")
    for (model, task), axes in zip(pairs, grid, strict=True):
        rows = data.filter(pl.col("model") == model, pl.col("task") == task).to_dicts()
        accuracy_panel(axes, rows, families)
    legend(figure, [*family_handles(strategies), *reference_handles()])
    return figure


def accuracy_panel(axes: Axes, rows: Sequence[dict[str, Any]], families: list[str]) -> None:
    """One experiment's accuracies as bars, with the lines of ALL and of the majority class."""
    # The values stand in one line above everything else, where no horizontal line crosses them.
    top = max([(r["mean"] or 0) + (r["std"] or 0) for r in rows] + [rows[0]["majority"] or 0, 0.5])
    names = [row["strategy"] for row in rows]
    bars(axes, names, [None if row["mean"] is None else 100 * row["mean"] for row in rows], families)
    for place, row in enumerate(rows):
        if row["mean"] is not None:
            value = f"{100 * row['mean']:.1f}"
            axes.text(place, 103 * top, value, rotation=90, ha="center", va="bottom", fontsize=6.8, zorder=5)
    spread = [(place, row["mean"], row["std"]) for place, row in enumerate(rows) if row["std"] is not None]
    whiskers(axes, [(place, 100 * mean, 100 * std, 100 * std) for place, mean, std in spread])
    _reference_lines(axes, rows[0])
    axes.set_ylim(0, 100 * top * 1.17)
    axes.set_ylabel("accuracy, %")
    name_bars(axes, names)


def reference_handles() -> list[Line2D]:
    """Legend entries of the lines and marks in an accuracy panel."""
    lines = [
        Line2D([], [], color=ink, linewidth=1.1, linestyle=_DASHED, label=f"{BASELINE}, {name}")
        for name, _, ink in _BASELINE_LINES
    ]
    mark: Any = {"linestyle": "", "marker": "<", "markersize": 5, "color": INK}
    return [*lines, Line2D([], [], label="majority class", **mark)]


def _reference_lines(axes: Axes, row: dict[str, float | None]) -> None:
    mean, std, majority = row["baseline_mean"], row["baseline_std"], row["majority"]
    if majority is not None:
        edges: Any = {"linestyle": "", "color": INK, "markersize": 5, "clip_on": False, "zorder": 5}
        across = axes.get_yaxis_transform()
        axes.plot([0], [100 * majority], marker=">", transform=across, **edges)
        axes.plot([1], [100 * majority], marker="<", transform=across, **edges)
    if mean is None:
        return
    for _, sign, ink in _BASELINE_LINES if std is not None else _BASELINE_LINES[:1]:
        height = 100 * (mean + sign * (std or 0.0))
        axes.axhline(height, color=ink, linewidth=1.1, linestyle=_DASHED, zorder=3)


def figure_4(data: pl.DataFrame) -> Figure:
    """Speed against accuracy; a half-disc is filled to the share of unfrozen layers (the paper's Figure 4)."""
    pairs = experiments(data)
    strategies = strategies_in_order(data["strategy"])
    families = families_of(strategies)
    shared = not data["exclusive"].all()
    notes = [(_GAUGE, MUTED), *([(SHARED, WARNING)] if shared else [])]
    # With few panels there is room for larger ones, whose labels overlap less.
    bars, height = (18, 3.8) if len(pairs) <= 4 else (14, 2.9)
    title = "Training speed and accuracy"
    figure, grid = panels(pairs, bars=bars, height=height, below=0.55, title=title, notes=notes)
    for (model, task), axes in zip(pairs, grid, strict=True):
        rows = data.filter(pl.col("model") == model, pl.col("task") == task).to_dicts()
        points = [(row["seconds"], 100 * row["mean"]) for row in rows]
        set_limits(axes, points)
        plain(axes, grid="both")
        axes.set_xlabel(
            "seconds of the first 10 steps"
            + ("" if all(r["exclusive"] for r in rows) else "  (device shared)")
        )
        axes.set_ylabel("accuracy, %")
        shares = [row["unfrozen_share"] or 0.0 for row in rows]
        gauges(axes, points, shares, [colour(row["strategy"], families) for row in rows])
        place_labels(axes, points, [row["strategy"] for row in rows])
    handles = [
        Patch(facecolor=family_colour(family, families), edgecolor=INK, linewidth=0.6, label=family)
        for family in families
    ]
    legend(figure, handles)
    return figure


def figure_5(data: pl.DataFrame) -> Figure:
    """Static and training memory by strategy, with the cut of training memory against ALL (Figure 5)."""
    models = sorted(set(data["model"]))
    strategies = strategies_in_order(data["strategy"])
    families = families_of(strategies)
    figure, grid = panels(
        [(m, "") for m in models],
        bars=len(strategies),
        height=2.7,
        below=0.75,
        title="Static and training memory",
        notes=[(_PERCENT, MUTED)],
    )
    for model, axes in zip(models, grid, strict=True):
        rows = data.filter(pl.col("model") == model).to_dicts()
        highest = max(_peak(row) for row in rows)
        unit, size = memory_unit(highest)
        for place, row in enumerate(rows):
            _memory_bar(axes, place, row, families, size, highest)
        axes.set_ylim(0, highest / size * 1.25 or 1)
        axes.set_ylabel(f"memory, {unit}")
        name_bars(axes, [r["strategy"] for r in rows])
    handles: list[Patch | Line2D] = [
        Patch(facecolor=_STATIC, edgecolor=INK, linewidth=0.6, label="static model (grey)"),
        *family_handles(strategies),
    ]
    if data["after_switch"].is_not_null().any():
        handles.append(Line2D([], [], color=INK, linewidth=1.6, label="adaptive: after the switch"))
    legend(figure, handles)
    return figure


def _peak(row: dict[str, Any]) -> float:
    """The highest point of a strategy's bar, in bytes."""
    return float((row["static"] or 0.0) + (row["training"] or 0.0))


def _memory_bar(
    axes: Axes, place: int, row: dict[str, Any], families: list[str], size: int, highest: float
) -> None:
    name = row["strategy"]
    edge: Any = {"edgecolor": INK, "linewidth": 0.6, "zorder": 2}
    if row["training"] is None:
        no_result(axes, place, 0.01 * highest / size)
        return
    static, training = row["static"] / size, row["training"] / size
    axes.bar(place, static, BAR, color=_STATIC, **edge)
    axes.bar(place, training, BAR, bottom=static, color=colour(name, families), hatch=hatch(name), **edge)
    if row["after_switch"] is not None:
        later = static + row["after_switch"] / size
        axes.plot([place - BAR / 2, place + BAR / 2], [later, later], color=INK, linewidth=2.2, zorder=4)
    if row["reduction"] is not None and name != BASELINE:
        at = (_peak(row) + 0.02 * highest) / size
        text = change(1 - row["reduction"])
        axes.text(place, at, text, rotation=90, ha="center", va="bottom", fontsize=6.8)


def figure_6(data: pl.DataFrame) -> Figure:
    """Ranking scores, the best strategy on top (the paper's Figure 6)."""
    rows, of_paper = data.to_dicts(), data.filter(pl.col("group") == "paper")
    families = families_of(data["strategy"])
    height = 0.27 * len(rows) + 1.25
    with style():
        figure = canvas(8.2, height)
        axes = figure.add_axes((1.0 / 8.2, 0.6 / height, 6.6 / 8.2, 1 - 1.1 / height))
        figure.text(0.012, 1 - 0.2 / height, "Ranking score", fontsize=12, fontweight="bold", va="top")
        longest = max([row["score"] for row in rows] + [1.0])
        varies = data["n"].n_unique() > 1
        for place, row in enumerate(rows):
            name = row["strategy"]
            axes.barh(
                place, row["score"], 0.74, color=colour(name, families), edgecolor=INK, linewidth=0.6,
                hatch=hatch(name), zorder=2,
            )  # fmt: skip
            text = f"{row['score']:.2f}" + (f"  (n = {row['n']})" if varies else "")
            axes.text(row["score"] + 0.012 * longest, place, text, va="center", fontsize=8)
        axes.set_yticks(range(len(rows)), [row["strategy"] for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, longest * (1.2 if varies else 1.1))
        if 0 < of_paper.height < len(rows):
            axes.axhline(of_paper.height - 0.5, color=INK, linewidth=0.8, zorder=3)
        count = plural(max(row["n"] for row in rows), "experiment")
        most = f"{rows[0]['most']:.0f}" if of_paper["most"].n_unique() == 1 else "K − 1"
        axes.set_xlabel(
            f"mean of reversed ranks over {'up to ' if varies else ''}{count} (worst 0, best {most})"
        )
        plain(axes, grid="x")
    return figure
