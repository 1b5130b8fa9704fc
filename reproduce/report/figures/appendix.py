"""The paper's appendix, Figures 7 to 11, and the same for the experiments that it does not show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reproduce.report.analysis.aggregates import EXPERIMENT, efficiency, speed_trials
from reproduce.report.analysis.paper_figures import figure_3_data, is_task
from reproduce.report.analysis.report_data import ReportData
from reproduce.report.figures.grid import WARNING, bars, legend, name_bars, panels, whiskers
from reproduce.report.figures.paper import SHARED, accuracy_panel, reference_handles
from reproduce.report.figures.spec import FigureSpec, from_trials, n_range
from reproduce.report.figures.style import INK, families_of, family_handles
from reproduce.report.formatting import change, seconds
from reproduce.report.strategy_order import BASELINE, experiments, in_order, strategies_in_order

_SPEED = "s per 10 steps"
_KINDS = ("accuracy", "speed")
# A model's name in the titles, and its miniature's and its own name in trials.
_GEMMA, _PHI, _MINICPM = (
    ("Gemma", ("tiny-gemma", "gemma-2b")),
    ("Phi-2", ("tiny-phi", "phi-2")),
    ("MiniCPM", ("tiny-minicpm", "minicpm-2b-128k")),
)
# Of the paper's Appendix A: number, model, tasks, what is drawn. It does not say what Figures 9 to 11 show
# of a task; both are drawn.
_PAPER = (
    (7, _GEMMA, ("rte", "cb", "qnli", "wnli"), ("accuracy",)),
    (8, _GEMMA, ("rte", "cb", "qnli", "wnli"), ("speed",)),
    (9, _GEMMA, ("rte", "cb", "wnli", "mnli"), _KINDS),
    (10, _PHI, ("rte", "cb", "wnli", "mnli"), _KINDS),
    (11, _MINICPM, ("rte", "cb", "wnli", "mnli"), _KINDS),
)


def _shown(models: Sequence[str], tasks: Sequence[str]) -> pl.Expr:
    """Whether a trial is of these models and tasks, or of the tasks' miniatures."""
    return pl.col("model").is_in(models) & is_task(*tasks)


def _others() -> pl.Expr:
    return ~pl.any_horizontal(_shown(models, tasks) for _, (_, models), tasks, _ in _PAPER)


def panel_data(trials: pl.DataFrame) -> pl.DataFrame:
    """Accuracies and step times of each experiment.

    Columns: those of ``figure_3_data``; seconds (per 10 steps, median over seeds), fastest, slowest,
    time_ratio (to ALL's median), n_speed, exclusive.
    """
    keys = [*EXPERIMENT, "strategy"]
    spread = (
        speed_trials(trials)
        .group_by(keys)
        .agg(fastest=pl.col("seconds_per_10_steps").min(), slowest=pl.col("seconds_per_10_steps").max())
    )
    speed = efficiency(trials).select(
        *keys, "time_ratio", "n_speed", "exclusive", seconds="seconds_per_10_steps"
    )
    joined = figure_3_data(trials).join(speed, on=keys, how="left").join(spread, on=keys, how="left")
    return in_order(joined)


def draw(data: pl.DataFrame, title: str, kinds: Sequence[str]) -> Figure:
    """For each experiment a panel of each kind: accuracies, step times."""
    strategies = strategies_in_order(data["strategy"])
    families = families_of(strategies)
    shared = "speed" in kinds and not data["exclusive"].drop_nulls().all()
    pairs = experiments(data)
    named = len(kinds) > 1
    figure, grid = panels(
        [(f"{model} · {task}", kind if named else "") for model, task in pairs for kind in kinds],
        bars=len(strategies),
        height=2.3,
        below=0.75,
        title=title,
        notes=[(SHARED, WARNING)] if shared else [],
        about=[pair for pair in pairs for _ in kinds],
        columns=2,
    )
    drawers = {"accuracy": accuracy_panel, "speed": _speed_panel}
    axes = iter(grid)
    for model, task in pairs:
        rows = data.filter(pl.col("model") == model, pl.col("task") == task).to_dicts()
        for kind in kinds:
            drawers[kind](next(axes), rows, families)
    lines = reference_handles() if "accuracy" in kinds else []
    legend(figure, [*family_handles(strategies), *lines])
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


def _caption(report_data: ReportData, data: pl.DataFrame, *, kinds: Sequence[str]) -> str:
    texts = []
    if "accuracy" in kinds:
        texts.append(
            "Accuracy: look for high bars; mean ± standard deviation over seeds, "
            f"{n_range(data['n'])} (seeds per bar)."
        )
    if "speed" in kinds:
        timed = data.filter(pl.col("n_speed") > 0)["n_speed"]
        times = f"{n_range(timed)} (seeds per time)" if timed.len() else "no time was measured"
        texts.append(
            "Speed: look for low bars; median seconds per 10 training steps, whiskers from the fastest to the "
            f"slowest seed; the labels give the change against ALL's median; {times}."
        )
    return " ".join(texts)


def _times(trials: pl.DataFrame) -> pl.DataFrame:
    """``panel_data``, of which the times alone are drawn."""
    return panel_data(trials).with_columns(n=pl.col("n_speed").fill_null(0))


def _figure(name: str, title: str, chosen: Callable[[], pl.Expr], kinds: Sequence[str]) -> FigureSpec:
    compute = panel_data if "accuracy" in kinds else _times
    return FigureSpec(
        name,
        title,
        from_trials(lambda trials: compute(trials.filter(chosen()))),
        partial(draw, title=title, kinds=kinds),
        partial(_caption, kinds=kinds),
    )


FIGURES = (
    *(
        _figure(f"figure_{number}", f"{model}: {' and '.join(kinds)}", partial(_shown, names, tasks), kinds)
        for number, (model, names), tasks, kinds in _PAPER
    ),
    _figure("experiments", "Other experiments: accuracy and speed", _others, _KINDS),
)
