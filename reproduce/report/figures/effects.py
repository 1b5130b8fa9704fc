"""Differences to ALL with intervals, and the effect of settings that the paper does not specify."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reproduce.report.analysis.effects import ALL_MODELS, effects_data, sensitivity_data
from reproduce.report.analysis.inference import ALPHA
from reproduce.report.analysis.report_data import ReportData
from reproduce.report.figures.grid import WARNING, legend, panels
from reproduce.report.figures.spec import FigureSpec, from_trials, n_range
from reproduce.report.figures.style import INK, MUTED, colour, families_of, plain
from reproduce.report.formatting import plural

_ROW = 0.21  # height of a row, in inches


def figure_differences(data: pl.DataFrame) -> Figure:
    """Each strategy's difference in accuracy to ALL, over all models and for each model."""
    models = sorted(set(data["model"]), key=lambda model: (model != ALL_MODELS, model))
    families = families_of(data["strategy"])
    names = list(dict.fromkeys(data["strategy"]))
    figure, grid = panels(
        [(model, "") for model in models],
        bars=17,
        height=_ROW * len(names) + 0.2,
        below=0.5,
        title="Accuracy against ALL",
        about=[("" if model == ALL_MODELS else model, "") for model in models],
    )
    for model, axes in zip(models, grid, strict=True):
        rows = {row["strategy"]: row for row in data.filter(pl.col("model") == model).to_dicts()}
        known = [row for row in rows.values() if row["difference"] is not None]
        _intervals(axes, [names.index(row["strategy"]) for row in known], known, families)
        axes.axvline(0, color=INK, linewidth=0.9, zorder=1)
        _name_rows(axes, names)
        axes.set_xlabel("difference to ALL, points")
    dot: dict[str, Any] = {"marker": "o", "linestyle": "", "markeredgecolor": INK, "markersize": 6}
    legend(
        figure,
        [
            Line2D([], [], color=INK, linewidth=1.2, label="95 % interval"),
            Line2D([], [], color=MUTED, label="filled: adjusted p < 0.05", **dot),
            Line2D([], [], color="white", label="open: adjusted p ≥ 0.05", **dot),
            Line2D(
                [],
                [],
                color=MUTED,
                label="small: too few experiments for a test",
                **dot | {"markersize": 3.6},
            ),
        ],
    )
    return figure


def _intervals(axes: Axes, places: list[int], rows: list[dict[str, Any]], families: list[str]) -> None:
    for place, row in zip(places, rows, strict=True):
        if row["low"] is not None:
            axes.plot([100 * row["low"], 100 * row["high"]], [place] * 2, color=INK, linewidth=1.2, zorder=2)
    tested = [row["p_holm"] is not None for row in rows]
    filled = [not test or row["p_holm"] < ALPHA for test, row in zip(tested, rows, strict=True)]
    inks = [colour(row["strategy"], families) for row in rows]
    axes.scatter(
        [100 * row["difference"] for row in rows],
        places,
        s=[32 if test else 14 for test in tested],
        color=[ink if yes else "white" for ink, yes in zip(inks, filled, strict=True)],
        edgecolors=[INK if yes else ink for ink, yes in zip(inks, filled, strict=True)],
        linewidths=[0.7 if yes else 1.5 for yes in filled],
        zorder=3,
    )


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=7.8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    plain(axes, grid="both")


def figure_sensitivity(data: pl.DataFrame) -> Figure:
    """The effect of other settings on accuracy, training memory and step time."""
    names = data["setting"].to_list()
    shared = not data["exclusive"].drop_nulls().all()
    kinds = {"accuracy": "points", "memory": "% of training memory", "time": "% of step time"}
    figure, grid = panels(
        [(kind, "") for kind in kinds],
        bars=13,
        height=_ROW * len(names) + 0.3,
        below=0.5,
        title="Sensitivity to what the paper leaves open",
        notes=[("▲ Some times were measured on a shared device.", WARNING)] if shared else [],
        left=0.072 * max(map(len, names)) + 0.3,
        columns=1 if len(names) > 12 else 3,
        about=[("", "")] * len(kinds),
    )
    for (kind, unit), axes in zip(kinds.items(), grid, strict=True):
        for place, row in enumerate(data.to_dicts()):
            if row[kind] is None:
                axes.text(0, place, "–", ha="center", va="center", color=MUTED)
                continue
            spread = 100 * (row[f"{kind}_std"] or 0)
            axes.errorbar(100 * row[kind], place, xerr=spread, color=INK, linewidth=1.1, capsize=2, zorder=2)
            axes.scatter(
                [100 * row[kind]], [place], s=30, color="#0072b2", edgecolors=INK, linewidths=0.6, zorder=3
            )
        axes.axvline(0, color=INK, linewidth=0.9, zorder=1)
        _name_rows(axes, names)
        axes.set_xlabel(f"change, {unit}")
    return figure


def _differences_caption(report_data: ReportData, data: pl.DataFrame) -> str:
    return (
        "An interval entirely to the left of the line suggests lower accuracy than ALL; of many intervals, some "
        "are so by chance. "
        "Differences are paired by model, task and seed; dots are means over experiments, intervals allow for "
        "other seeds and other validation examples within each experiment. Filled dots: p below "
        f"{ALPHA:g} in the signed-rank test over experiments, adjusted by Holm's method over the strategies "
        "of a panel; small dots: so few experiments that no p-value could reach this level; "
        f"{n_range(data['n'])} (pairs), {n_range(data['n_blocks'])} (experiments)."
    )


def _sensitivity_caption(report_data: ReportData, data: pl.DataFrame) -> str:
    return (
        "Dots away from the line show that results depend on a setting that the paper does not specify. Each "
        "row compares trials with the same model, task and seed that differ in that setting alone; dots are "
        "means, whiskers standard deviations; "
        f"{n_range(data['n'])} (pairs per row), {plural(data.height, 'setting')}."
    )


FIGURES = (
    FigureSpec(
        "differences",
        "Accuracy against ALL",
        lambda report_data: effects_data(report_data.trials, report_data.correctness),
        figure_differences,
        _differences_caption,
    ),
    FigureSpec(
        "sensitivity",
        "Sensitivity to what the paper leaves open",
        from_trials(sensitivity_data),
        figure_sensitivity,
        _sensitivity_caption,
    ),
)
