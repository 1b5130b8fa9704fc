"""Loss curves: the mean training loss of each strategy over seeds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import polars as pl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reproduce.report.analysis.aggregates import DIGITS, EXPERIMENT, successful
from reproduce.report.analysis.report_data import ReportData
from reproduce.report.figures.grid import legend, panels
from reproduce.report.figures.spec import FigureSpec, n_range
from reproduce.report.figures.style import INK, MUTED, colour, families_of, plain
from reproduce.report.strategy_order import (
    BASELINE,
    family_of,
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
    """For each model a row of panels, one for each family: its strategies, with ALL in grey."""
    models = sorted(set(data["model"]))
    names = strategies_in_order(data["strategy"])
    families = families_of(names)
    shown = [name for name in families if name != family_of(BASELINE)] or families
    mean = pl.col("loss").mean()
    curves = data.group_by("model", "strategy", "step").agg(mean).sort("step")
    figure, grid = panels(
        [(model, family) for model in models for family in shown],
        bars=13,
        height=1.7,
        below=0.5,
        title="Training loss",
        about=[(model, "") for model in models for _ in shown],
    )
    axes = iter(grid)
    for model in models:
        here = curves.filter(pl.col("model") == model)
        rows = [next(axes) for _ in shown]
        top = float(str(here["loss"].max() or 1.0))
        for family, panel in zip(shown, rows, strict=True):
            own = [name for name in names if family_of(name) == family and name != BASELINE]
            for name in (BASELINE, *own):
                line = here.filter(pl.col("strategy") == name)
                ink = MUTED if name == BASELINE else colour(name, families)
                width = 1.0 if name == BASELINE else 1.5
                panel.plot(line["step"], line["loss"], color=ink, linestyle=line_style(name), linewidth=width)
            panel.set_ylim(0, 1.05 * top)
            panel.set_xlabel("training step")
            panel.set_ylabel("loss")
            plain(panel, grid="y")
    legend(figure, [Line2D([], [], color=MUTED, linewidth=1.0, label=BASELINE), *ratio_handles(names)])
    return figure


def line_style(strategy: str) -> Any:
    """The line that shows a strategy's ratio."""
    percent = kind_and_percent(strategy)[1] or 0.0
    return next((line for limit, line in _STYLES if percent < limit), _STYLES[-1][1])


def ratio_handles(strategies: Iterable[str]) -> list[Line2D]:
    """Legend entries for the lines of ratios that occur."""
    used = {line_style(name) for name in strategies if name != BASELINE}
    return [
        Line2D([], [], color=INK, linestyle=style, linewidth=1.4, label=f"ratio below {limit:g} %")
        for limit, style in _STYLES
        if style in used
    ]


def _caption(report_data: ReportData, data: pl.DataFrame) -> str:
    tasks = data.group_by("model", "strategy").agg(n=pl.col("task").n_unique())["n"]
    return (
        "A line that stays above ALL's (grey) means that freezing keeps the model from learning the task. Each "
        f"point is the mean over {n_range(tasks)} (tasks), {n_range(data['n'])} (seeds of each task) and "
        f"1/{_POINTS} of the training steps; the CSV file has each task. Solid lines are ratios below 30 %, dashed "
        "lines below 60 %, dotted lines above."
    )


FIGURES = (FigureSpec("loss", "Training loss", loss_data, figure_loss, _caption),)
