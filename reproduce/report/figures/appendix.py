"""The paper's appendix, Figures 7 to 11: accuracies and step times of each task, by model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reproduce.report.analysis.aggregates import EXPERIMENT, efficiency, speed_trials
from reproduce.report.analysis.paper_figures import figure_3_data
from reproduce.report.analysis.report_data import ReportData
from reproduce.report.figures.grid import WARNING, bars, legend, name_bars, panels, whiskers
from reproduce.report.figures.paper import SHARED, accuracy_panel, reference_handles
from reproduce.report.figures.spec import FigureSpec, from_trials, n_range
from reproduce.report.figures.style import INK, families_of, family_handles
from reproduce.report.formatting import change, seconds
from reproduce.report.strategy_order import BASELINE, experiments, in_order, strategies_in_order

_SPEED = "s per 10 steps"


def task_data(trials: pl.DataFrame, task: str) -> pl.DataFrame:
    """Accuracies and step times of one task and of its miniature.

    Columns: those of ``figure_3_data``; seconds (per 10 steps, median over seeds), fastest, slowest,
    time_ratio (to ALL's median), n_speed, exclusive.
    """
    keys = [*EXPERIMENT, "strategy"]
    chosen = trials.filter(pl.col("task").str.strip_prefix("tiny-") == task)
    spread = (
        speed_trials(chosen)
        .group_by(keys)
        .agg(fastest=pl.col("seconds_per_10_steps").min(), slowest=pl.col("seconds_per_10_steps").max())
    )
    speed = efficiency(chosen).select(
        *keys, "time_ratio", "n_speed", "exclusive", seconds="seconds_per_10_steps"
    )
    joined = figure_3_data(chosen).join(speed, on=keys, how="left").join(spread, on=keys, how="left")
    return in_order(joined)


def figure_7(data: pl.DataFrame) -> Figure:
    """RTE (the paper's Figure 7)."""
    return _draw(data, "RTE")


def figure_8(data: pl.DataFrame) -> Figure:
    """QNLI (the paper's Figure 8)."""
    return _draw(data, "QNLI")


def figure_9(data: pl.DataFrame) -> Figure:
    """WNLI (the paper's Figure 9)."""
    return _draw(data, "WNLI")


def figure_10(data: pl.DataFrame) -> Figure:
    """MNLI (the paper's Figure 10)."""
    return _draw(data, "MNLI")


def figure_11(data: pl.DataFrame) -> Figure:
    """CB (the paper's Figure 11)."""
    return _draw(data, "CB")


def _draw(data: pl.DataFrame, name: str) -> Figure:
    """For each model a panel of accuracies and one of step times."""
    strategies = strategies_in_order(data["strategy"])
    families = families_of(strategies)
    shared = not data["exclusive"].drop_nulls().all()
    pairs = experiments(data)
    figure, grid = panels(
        [(f"{model} · {task}", kind) for model, task in pairs for kind in ("accuracy", "speed")],
        bars=len(strategies),
        height=2.3,
        below=0.75,
        title=f"{name}: accuracy and speed",
        notes=[(SHARED, WARNING)] if shared else [],
        about=[pair for pair in pairs for _ in range(2)],
    )
    for place, (model, task) in enumerate(pairs):
        rows = data.filter(pl.col("model") == model, pl.col("task") == task).to_dicts()
        accuracy_panel(grid[2 * place], rows, families)
        _speed_panel(grid[2 * place + 1], rows, families)
    legend(figure, [*family_handles(strategies), *reference_handles()])
    return figure


def _speed_panel(axes: Axes, rows: Sequence[dict[str, Any]], families: list[str]) -> None:
    """Median step times with whiskers from the fastest to the slowest seed, and the change against ALL."""
    top = max([row["slowest"] or 0 for row in rows]) or 1.0
    names = [row["strategy"] for row in rows]
    bars(axes, names, [row["seconds"] for row in rows], families)
    timed = [(place, row) for place, row in enumerate(rows) if row["seconds"] is not None]
    whiskers(
        axes,
        [(i, r["seconds"], r["seconds"] - r["fastest"], r["slowest"] - r["seconds"]) for i, r in timed],
    )
    for place, row in timed:
        name, median = row["strategy"], row["seconds"]
        text = change(row["time_ratio"]) if name != BASELINE and row["time_ratio"] else seconds(median)
        axes.text(place, 1.03 * top, text, rotation=90, ha="center", va="bottom", fontsize=6.8)
        if name == BASELINE:
            axes.axhline(median, color=INK, linewidth=1.0, zorder=3)
    axes.set_ylim(0, 1.3 * top)
    axes.set_ylabel(_SPEED + ("" if all(row["exclusive"] is not False for row in rows) else "  (shared)"))
    name_bars(axes, names)


def _caption(report_data: ReportData, data: pl.DataFrame) -> str:
    timed = data.filter(pl.col("n_speed") > 0)["n_speed"]
    times = f"{n_range(timed)} (seeds per time)" if timed.len() else "no time was measured"
    return (
        "Look for high accuracy and low step time. Accuracy: mean ± standard "
        f"deviation over seeds, {n_range(data['n'])} (seeds per bar). Speed: median seconds per 10 training "
        "steps, whiskers from the fastest to the slowest seed; the labels give the change against ALL's "
        f"median; {times}."
    )


def _plot(number: int, name: str, draw: Callable[[pl.DataFrame], Figure]) -> FigureSpec:
    task = name.lower()
    compute = from_trials(lambda trials: task_data(trials, task))
    return FigureSpec(f"figure_{number}", f"{name}: accuracy and speed", compute, draw, _caption)


FIGURES = (
    _plot(7, "RTE", figure_7),
    _plot(8, "QNLI", figure_8),
    _plot(9, "WNLI", figure_9),
    _plot(10, "MNLI", figure_10),
    _plot(11, "CB", figure_11),
)
