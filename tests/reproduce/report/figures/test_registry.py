"""Every figure of the report, on ordinary and on poor trials: drawn whole, or left out."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from reproduce.report.analysis.report_data import ReportData, collect_data
from reproduce.report.figures.registry import FIGURES, start_rendering
from reproduce.report.figures.render_pool import RenderPool
from reproduce.report.figures.spec import FigureSpec
from reproduce.store.parquet import TrialResult, write_trial
from reproduce.store.trial_row import TrialRow
from tests.reproduce.report.analysis.test_aggregates import frame
from tests.reproduce.report.figures.test_paper import inside, texts
from tests.reproduce.report.synthetic import grid, trial_row

Rows = list[dict[str, Any]]
PAPER_MODELS, PAPER_TASKS = ("gemma-2b", "minicpm-2b-128k", "phi-2"), ("cb", "mnli", "qnli", "rte", "wnli")


def report_data(rows: Rows, steps: int = 0) -> ReportData:
    trials = frame(*rows)
    table = [
        {"run_id": row["run_id"], "step": step, "loss": 1 / step}
        for row in rows
        for step in range(1, steps + 1)
    ]
    lazy = pl.LazyFrame(table, schema={"run_id": pl.String, "step": pl.Int32, "loss": pl.Float64})
    return ReportData(trials, trials, trials, lazy if steps else None, None, None, (), ())


def without(*columns: str) -> Callable[[], Rows]:
    return lambda: [{**row, **dict.fromkeys(columns)} for row in grid()]


_POOR: dict[str, Callable[[], Rows]] = {
    "one trial": lambda: [trial_row("ALL")],
    "one strategy, not ALL": lambda: grid(strategies=("BOT25",)),
    "no ALL": lambda: grid(strategies=("LoRA", "BOT25", "ADT-L50")),
    "one seed": lambda: grid(seeds=(42,)),
    "strategies outside the paper": lambda: grid(strategies=("ALL", "BOT40", "BitFit", "BOT-E25", "BOT25")),
    "all failed": lambda: grid(status="error"),
    "ALL failed": lambda: [*grid(strategies=("ALL",), status="oom"), *grid(strategies=("BOT25", "ADT-H25"))],
    "random weights": lambda: grid(weights="random"),
    "shared devices": lambda: grid(exclusive=False),
    "no times": without("seconds_per_10_steps", "exclusive"),
    "no memory": without(
        "training_bytes", "static_bytes", "probe_training_bytes", "predicted_training_bytes"
    ),
    "no layers": without("frozen_layers", "n_layers", "layer_changes"),
    "models of other depths": lambda: [*grid(("a",), n_layers=8), *grid(("b",), n_layers=40)],
    "a strategy on one task only": lambda: [*grid(strategies=("ALL", "BOT25")), trial_row("TOP25")],
    "nothing saved": lambda: grid(training_bytes=0, seconds_per_10_steps=0.0),
    "perfect": lambda: grid(validation_accuracy=1.0),
}


@cache
def _poor(name: str) -> ReportData:
    return report_data(_POOR[name](), steps=3)


# Figures of what the paper's grid lacks: several recipes, and evaluations during training.
_OTHERS = {"sensitivity", "evaluations"}
# By figure and its data: the texts of one that has been drawn whole. Poor trials often have the same data.
_drawn: dict[tuple[str, bytes], list[str]] = {}


def check(plot: FigureSpec, collected: ReportData) -> pl.DataFrame:
    data = plot.compute(collected)
    assert {"n", "strategy"} <= set(data.columns)
    if data["n"].sum():
        key = plot.name, data.serialize()
        if key not in _drawn:
            figure = plot.draw(data)
            figure.draw_without_rendering()
            assert inside(figure)
            _drawn[key] = texts(figure)
        caption = plot.caption(collected, data)
        assert "n\N{NO-BREAK SPACE}=" in caption
        assert not {"None", "nan"} & set(" ".join([caption, *_drawn[key]]).replace(",", " ").split())
    return data


@pytest.mark.parametrize("plot", FIGURES, ids=lambda plot: plot.name)
@pytest.mark.parametrize("poor", _POOR)
def test_poor_trials_are_drawn_or_left_out(plot: FigureSpec, poor: str) -> None:
    check(plot, _poor(poor))


@pytest.fixture(scope="module")
def papers_grid() -> ReportData:
    return report_data(grid(PAPER_MODELS, PAPER_TASKS, seeds=(42, 43), n_layers=40), steps=30)


@pytest.mark.parametrize(
    "plot", [plot for plot in FIGURES if plot.name not in _OTHERS], ids=lambda plot: plot.name
)
def test_the_papers_grid_is_drawn_whole(plot: FigureSpec, papers_grid: ReportData) -> None:
    assert check(plot, papers_grid)["n"].sum()


def test_names_are_unique_and_files_have_them(tmp_path: Path) -> None:
    assert len({plot.name for plot in FIGURES}) == len(FIGURES)
    with RenderPool(parallel=False) as pool:
        rendered = start_rendering(report_data(grid()), tmp_path, pool)
        pool.finish()
    assert {path.stem for path in tmp_path.iterdir()} == {figure.name for figure in rendered}


def test_published_rows_have_no_loss_curves(tmp_path: Path) -> None:
    row = trial_row("ALL")
    write_trial(tmp_path / "a", TrialResult(TrialRow.from_columns(row), {"step": [1], "loss": [0.5]}))
    (loss,) = (plot for plot in FIGURES if plot.name == "loss")
    assert loss.compute(collect_data([tmp_path / "a"], [])).height == 1
    (tmp_path / "b").mkdir()
    frame(row).drop("artifacts", strict=False).write_parquet(tmp_path / "b" / "trials.parquet")
    assert loss.compute(collect_data([tmp_path / "b"], [])).height == 0
