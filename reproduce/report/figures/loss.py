"""Loss curves: the mean training loss of each strategy over seeds."""

from __future__ import annotations

from typing import Any

import polars as pl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reproduce.report.analysis.aggregates import DIGITS, EXPERIMENT, successful
from reproduce.report.analysis.report_data import ReportData
from reproduce.report.figures.grid import legend, panels
from reproduce.report.figures.spec import FigureSpec, n_range
from reproduce.report.figures.style import colour, families_of, plain
from reproduce.report.strategy_order import (
    BASELINE,
    experiments,
    in_order,
    kind_and_percent,
    strategies_in_order,
)

_POINTS = 25
_SCHEMA = {
    **dict.fromkeys((*EXPERIMENT, "strategy"), pl.String),
    "step": pl.Int64,
    "loss": pl.Float64,
    "n": pl.Int64,
}
# From the lowest ratio up: (below this percentage, line style).
_STYLES: tuple[tuple[float, Any], ...] = (
    (30.0, "-"),
    (40.0, (0, (6, 1.5))),
    (60.0, (0, (3, 1.5))),
    (100.0, ":"),
)


def loss_data(report_data: ReportData) -> pl.DataFrame:
    """Mean loss over the steps of a window, then over seeds: model, task, strategy, step, loss, n (seeds).

    ``step`` is the window's last; the longest training has ``_POINTS`` windows. Empty if no step was
    recorded or the steps cannot be read.
    """
    cells = successful(report_data.trials).select("run_id", *EXPERIMENT, "strategy").lazy()
    longest = report_data.read("steps", lambda steps: steps.select(pl.col("step").max()))
    if longest is None:
        return pl.DataFrame(schema=_SCHEMA)
    width = max(1, -(-(longest.item() or 1) // _POINTS))
    last = (pl.col("step").cast(pl.Int64) + width - 1) // width * width

    def means(steps: pl.LazyFrame) -> pl.LazyFrame:
        return (
            steps.select("run_id", "loss", step=last)
            .join(cells, on="run_id")
            .filter(pl.col("loss").is_finite())
            .group_by(*EXPERIMENT, "strategy", "step")
            .agg(pl.col("loss").mean().round(DIGITS), n=pl.col("run_id").n_unique().cast(pl.Int64))
        )

    curves = report_data.read("steps", means)
    return pl.DataFrame(schema=_SCHEMA) if curves is None else in_order(curves.sort("step")).select(*_SCHEMA)


def figure_loss(data: pl.DataFrame) -> Figure:
    """A panel for each experiment, a line for each strategy: colour by family, style by ratio."""
    pairs = experiments(data)
    strategies = strategies_in_order(data["strategy"])
    families = families_of(strategies)
    figure, grid = panels(pairs, bars=14, height=2.1, below=0.5, title="Training loss")
    for (model, task), axes in zip(pairs, grid, strict=True):
        here = data.filter(pl.col("model") == model, pl.col("task") == task)
        for (name,), rows in here.group_by("strategy", maintain_order=True):
            axes.plot(
                rows["step"], rows["loss"], color=colour(str(name), families), linestyle=_line(str(name)),
                linewidth=1.5 if name == BASELINE else 1.0, zorder=4 if name == BASELINE else 3,
            )  # fmt: skip
        axes.set_xlabel("training step")
        axes.set_ylabel("loss")
        plain(axes, grid="y")
    handles = [
        Line2D([], [], color=colour(name, families), linestyle=_line(name), linewidth=1.4, label=name)
        for name in strategies
    ]
    legend(figure, handles)
    return figure


def _line(strategy: str) -> Any:
    percent = kind_and_percent(strategy)[1] or 0.0
    return next((line for limit, line in _STYLES if percent < limit), _STYLES[-1][1])


def _caption(report_data: ReportData, data: pl.DataFrame) -> str:
    return (
        "A line that stays above ALL's means that freezing keeps the model from learning the task. Each point "
        f"is the mean over {n_range(data['n'])} (seeds) and 1/{_POINTS} of the training steps. Colours show "
        "the family; solid lines are ratios below 30 %, dashed lines below 60 %, dotted lines above."
    )


FIGURES = (FigureSpec("loss", "Training loss", loss_data, figure_loss, _caption),)
