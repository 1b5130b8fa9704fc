"""Accuracy against cost: Pareto fronts, accuracy by frozen share, measured and ideal savings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reproduce.report.analysis.report_data import ReportData
from reproduce.report.analysis.tradeoffs import pareto_data, ratio_data, savings_data
from reproduce.report.figures.grid import WARNING, legend, panels, set_limits
from reproduce.report.figures.markers import dots, place_labels
from reproduce.report.figures.paper import SHARED
from reproduce.report.figures.spec import FigureSpec, from_trials, n_range
from reproduce.report.figures.style import (
    INK,
    MUTED,
    colour,
    families_of,
    family_colour,
    family_marker,
    marker,
    plain,
)
from reproduce.report.formatting import listed
from reproduce.report.strategy_order import BASELINE, family_of, kind_and_percent, strategies_in_order

_COSTS = {"time": "time per step, % of ALL's", "memory": "training memory, % of ALL's"}
_FAR = 0.05  # points further from the ideal than this fraction of ALL's value are named


def figure_pareto(data: pl.DataFrame) -> Figure:
    """Accuracy against time and against memory for each model, with the Pareto fronts."""
    models = sorted(set(data["model"]))
    families = families_of(data["strategy"])
    shared = not data["exclusive"].drop_nulls().all()
    pairs = [(model, cost) for model in models for cost in _COSTS]
    figure, grid = panels(
        pairs,
        bars=16,
        height=3.1,
        below=0.55,
        title="Pareto fronts: accuracy against its cost",
        notes=[(SHARED, WARNING)] if shared else [],
        about=[(model, "") for model, _ in pairs],
    )
    for (model, cost), axes in zip(pairs, grid, strict=True):
        rows = data.filter(pl.col("model") == model).drop_nulls(f"{cost}_ratio").to_dicts()
        _front_panel(axes, rows, cost, families)
    front = Line2D([], [], color=INK, linewidth=1.0, marker="o", markersize=7, label="Pareto front")
    legend(figure, [front, *_family_marks(families)])
    return figure


def _front_panel(axes: Axes, rows: Sequence[dict[str, Any]], cost: str, families: list[str]) -> None:
    axes.set_xlabel(_COSTS[cost])
    axes.set_ylabel("accuracy, %")
    plain(axes, grid="both")
    points = [(100 * row[f"{cost}_ratio"], 100 * row["mean"]) for row in rows]
    if not points:
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes, color=MUTED)
        return
    set_limits(axes, points)
    on_front = [bool(row[f"on_{cost}_front"]) for row in rows]
    line = sorted(point for point, best in zip(points, on_front, strict=True) if best)
    axes.plot(*zip(*line, strict=True), color=INK, linewidth=1.0, zorder=2)
    names = [row["strategy"] for row in rows]
    sizes, widths = [62 if best else 34 for best in on_front], [1.4 if best else 0.6 for best in on_front]
    dots(axes, points, names, families, sizes=sizes, widths=widths)
    place_labels(axes, points, names, centred=True, line=line)


def figure_ratio(data: pl.DataFrame) -> Figure:
    """Difference in accuracy to ALL by the frozen share of the layers, a line for each kind of strategy."""
    models = sorted(set(data["model"]))
    families = families_of(data["strategy"])
    figure, grid = panels(
        [(model, "") for model in models],
        bars=15,
        height=2.9,
        below=0.55,
        title="Accuracy by frozen share",
    )
    for model, axes in zip(models, grid, strict=True):
        here = data.filter(pl.col("model") == model)
        lined = here.drop_nulls("percent")
        by_kind: dict[str, list[dict[str, Any]]] = {}
        for row in lined.sort("percent").to_dicts():
            by_kind.setdefault(kind_and_percent(row["strategy"])[0], []).append(row)
        for place, label in enumerate(strategies_in_order(by_kind)):
            _kind_line(axes, by_kind[label], families, 1.7 * (place - (len(by_kind) - 1) / 2))
        for row in here.filter(pl.col("percent").is_null()).to_dicts():
            value, ink = 100 * row["difference"], colour(row["strategy"], families)
            axes.axhline(value, color=ink, linewidth=1.4, linestyle=(0, (5, 2)), zorder=2)
            axes.text(0.01, value, row["strategy"], transform=axes.get_yaxis_transform(), ha="left",
                      va="bottom", fontsize=7)  # fmt: skip
        axes.axhline(0, color=INK, linewidth=0.9, zorder=1)
        ticks = sorted({0.0, *lined["percent"].to_list()})
        axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
        axes.set_xlabel("frozen layers, %")
        axes.set_ylabel("difference to ALL, points")
        plain(axes, grid="both")
    legend(figure, _family_marks([name for name in families if name != family_of(BASELINE)], line=True))
    return figure


def _kind_line(axes: Axes, rows: Sequence[dict[str, Any]], families: list[str], shift: float) -> None:
    """A line that starts at ALL (0, 0); ``shift``, in percent, keeps the lines' whiskers apart."""
    strategy = rows[0]["strategy"]
    x = [row["percent"] + shift for row in rows]
    y = [100 * row["difference"] for row in rows]
    ink = colour(strategy, families)
    axes.plot([0, *x], [0, *y], color=ink, linewidth=1.3, zorder=3)
    axes.errorbar(
        x, y, [100 * (row["std"] or 0) for row in rows], color=INK, linewidth=0.7, capsize=1.8, fmt="none",
        zorder=3,
    )  # fmt: skip
    axes.scatter(x, y, s=30, marker=marker(strategy), color=ink, edgecolors=INK, linewidths=0.6, zorder=4)


def figure_savings(data: pl.DataFrame) -> Figure:
    """Measured against predicted savings of memory and time, for each model."""
    families = families_of(data["strategy"])
    shared = not data["exclusive"].drop_nulls().all()
    pairs = [(model, kind) for model in sorted(set(data["model"])) for kind in ("memory", "time")]
    figure, grid = panels(
        pairs,
        bars=14,
        height=2.9,
        below=0.55,
        title="Measured and ideal savings against ALL",
        notes=[(SHARED, WARNING)] if shared else [],
        about=[(model, "") for model, _ in pairs],
    )
    for (model, kind), axes in zip(pairs, grid, strict=True):
        rows = data.filter(pl.col("model") == model).drop_nulls([f"measured_{kind}", f"ideal_{kind}"])
        _savings_panel(axes, rows.to_dicts(), kind, families)
    legend(figure, [*_family_marks(families), Line2D([], [], color=INK, label="measured = ideal")])
    return figure


def _savings_panel(axes: Axes, rows: Sequence[dict[str, Any]], kind: str, families: list[str]) -> None:
    axes.set_xlabel("ideal saving, %")
    axes.set_ylabel("measured saving, %")
    plain(axes, grid="both")
    points = [(100 * row[f"ideal_{kind}"], 100 * row[f"measured_{kind}"]) for row in rows]
    if not points:
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes, color=MUTED)
        return
    set_limits(axes, points)
    axes.axline((0, 0), slope=1, color=INK, linewidth=0.9, zorder=1)
    dots(axes, points, [row["strategy"] for row in rows], families, sizes=[34])
    far = [i for i, (x, y) in enumerate(points) if abs(y - x) > 100 * _FAR]
    others = [point for i, point in enumerate(points) if i not in far]
    names = [rows[i]["strategy"] for i in far]
    place_labels(axes, [points[i] for i in far], names, centred=True, others=others)


def _family_marks(families: Sequence[str], *, line: bool = False) -> list[Line2D]:
    return [
        Line2D(
            [], [], linestyle="-" if line else "", color=family_colour(name, families), marker=family_marker(name),
            markeredgecolor=INK, markeredgewidth=0.6, markersize=6, label=name,
        )
        for name in families
    ]  # fmt: skip


def _pareto_caption(report_data: ReportData, data: pl.DataFrame) -> str:
    keys = ["model", "strategy"]
    absent = report_data.trials.select(keys).unique().join(data, on=keys, how="anti").sort(keys)
    names = [f"{row['strategy']} ({row['model']})" for row in absent.to_dicts()]
    return (
        "The line is the Pareto front: no other strategy is at least as good in both accuracy and cost as a "
        "strategy on it. Means over tasks of means over seeds, costs relative to ALL's; an adaptive strategy's "
        f"memory includes its probe phase. {n_range(data['n'])} (trials per point), {n_range(data['n_tasks'])} "
        "(tasks)."
        + (
            f" Not drawn, for lack of results on every task with trained weights: {listed(names)}."
            if names
            else ""
        )
    )


def _ratio_caption(report_data: ReportData, data: pl.DataFrame) -> str:
    return (
        "Where a line falls, that share of frozen layers costs accuracy. Points are mean differences to ALL "
        "over tasks, whiskers standard deviations over tasks. The share is that of the layers that were frozen "
        "(INT33 freezes 2 of 8); strategies of one share are drawn side by side; "
        f"{n_range(data['n'])} (trials per point), {n_range(data['n_tasks'])} (tasks)."
    )


def _savings_caption(report_data: ReportData, data: pl.DataFrame) -> str:
    return (
        "Points on the line save as much as counting bytes and floating-point operations predicts; points "
        "below it save less; an adaptive strategy's memory is that of the phase after its switch. Points that "
        "deviate by more than "
        f"{100 * _FAR:g} percentage points are named. Means over tasks of medians over seeds; {n_range(data['n'])} "
        "(trials per point)."
    )


FIGURES = (
    FigureSpec("pareto", "Pareto fronts", from_trials(pareto_data), figure_pareto, _pareto_caption),
    FigureSpec("ratio", "Accuracy by frozen share", from_trials(ratio_data), figure_ratio, _ratio_caption),
    FigureSpec(
        "savings", "Measured and ideal savings", from_trials(savings_data), figure_savings, _savings_caption
    ),
)
