"""Validation accuracy during training, against optimiser steps and against seconds."""

from __future__ import annotations

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reproduce.report.analysis.aggregates import DIGITS, EXPERIMENT, successful
from reproduce.report.analysis.inference import Mean
from reproduce.report.analysis.report_data import ReportData
from reproduce.report.figures.grid import legend, panels
from reproduce.report.figures.loss import line_style, ratio_handles
from reproduce.report.figures.spec import FigureSpec, n_range
from reproduce.report.figures.style import colour, families_of, family_colour, plain
from reproduce.report.strategy_order import in_order, strategies_in_order

_SCHEMA = {
    **dict.fromkeys((*EXPERIMENT, "strategy"), pl.String),
    "step": pl.Int64,
    **dict.fromkeys(("seconds", "accuracy", "low", "high", "loss"), pl.Float64),
    "n": pl.Int64,
}
_AXES = {"step": "training step", "seconds": "seconds of training"}


def evaluations_data(report_data: ReportData) -> pl.DataFrame:
    """Means over seeds after each evaluated step: model, task, strategy, step, seconds, accuracy, loss, n (seeds).

    ``low`` and ``high`` are the ends of the accuracy's 95 % t interval over seeds; null for a single seed. Seconds
    are of training, evaluations left out. Empty unless trials were evaluated during training.
    """
    cells = successful(report_data.trials).select("run_id", *EXPERIMENT, "strategy").lazy()
    keys = [*EXPERIMENT, "strategy", "step"]

    def means(evaluations: pl.LazyFrame) -> pl.LazyFrame:
        return (
            evaluations.with_columns(pl.col("step").cast(pl.Int64))
            .join(cells, on="run_id")
            .group_by(keys)
            .agg(
                pl.col("seconds", "accuracy", "loss").mean().round(DIGITS),
                error=(pl.col("accuracy").std() / pl.len().sqrt()).round(DIGITS),
                n=pl.len().cast(pl.Int64),
            )
        )

    curves = report_data.read("evaluations", means)
    if curves is None:
        return pl.DataFrame(schema=_SCHEMA)
    values = curves.select("accuracy", "error", "n").iter_rows()
    ends = [Mean(mean, error, n - 1).interval() or (None, None) for mean, error, n in values]
    low, high = (
        pl.Series(name, [end[side] for end in ends], pl.Float64) for side, name in enumerate(("low", "high"))
    )
    return in_order(curves.with_columns(low, high).sort("step")).select(*_SCHEMA)


def figure_evaluations(data: pl.DataFrame) -> Figure:
    """For each model and task two panels: accuracy against steps and against seconds."""
    experiments = data.select(EXPERIMENT).unique().sort(EXPERIMENT).rows()
    figure, grid = panels(
        [
            (model, f"{task}, against {'steps' if axis == 'step' else axis}")
            for model, task in experiments
            for axis in _AXES
        ],
        bars=14,
        height=2.3,
        below=0.55,
        title="Accuracy during training",
        columns=2,
        about=[experiment for experiment in experiments for _ in _AXES],
    )
    names = strategies_in_order(data["strategy"])
    families = families_of(names)
    axes = iter(grid)
    for model, task in experiments:
        rows = data.filter(model=model, task=task)
        for axis, label in _AXES.items():
            panel = next(axes)
            for name in names:
                _curve(panel, rows.filter(strategy=name).sort("step"), axis, name, families)
            panel.set_xlabel(label)
            panel.set_ylabel("accuracy, %")
            panel.set_xlim(left=0)
            plain(panel, grid="y")
    shown = [
        Line2D([], [], color=family_colour(name, families), linewidth=1.6, label=name) for name in families
    ]
    legend(figure, [*shown, *ratio_handles(names)])
    return figure


def _curve(panel: Axes, rows: pl.DataFrame, axis: str, strategy: str, families: list[str]) -> None:
    ink, places = colour(strategy, families), rows[axis].to_list()
    panel.plot(
        places,
        100 * rows["accuracy"].to_numpy(),
        color=ink,
        linestyle=line_style(strategy),
        linewidth=1.5,
        zorder=3,
    )
    known = rows.drop_nulls(["low", "high"])
    panel.fill_between(
        known[axis].to_list(), 100 * known["low"].to_numpy(), 100 * known["high"].to_numpy(),
        color=ink, alpha=0.13, linewidth=0, zorder=1,
    )  # fmt: skip


def _caption(report_data: ReportData, data: pl.DataFrame) -> str:
    ran = successful(report_data.trials)
    shared = ran.filter(~pl.col("exclusive").fill_null(False)).height
    text = (
        "A strategy whose line still rises at the end has not converged; one that is above another at the same second, "
        f"but not at the same step, gains by faster steps. Means over {n_range(data['n'])} (seeds), bands are 95 % "
        "intervals over seeds. Seconds are of training, evaluations left out."
    )
    if shared:
        text += " Trials shared their device, so seconds depend on its other load."
    return f"{text} Solid lines are ratios below 30 %, dashed lines below 60 %, dotted lines above."


FIGURES = (
    FigureSpec("evaluations", "Accuracy during training", evaluations_data, figure_evaluations, _caption),
)
