"""The numbers against an independent computation in pandas and plain Python, and small cases by hand."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from reproduce.report.analysis import paper_figures
from reproduce.report.analysis.aggregates import (
    accuracy,
    efficiency,
    one_per_cell,
    ranking,
    speed_trials,
    timed_devices,
)
from reproduce.report.analysis.report_data import ReportData
from reproduce.report.analysis.tables import table_predictions
from reproduce.report.strategy_order import kind_and_percent, strategies_in_order
from reproduce.report.text.findings import findings, notices
from reproduce.store.parquet import TRIAL_SCHEMA, read_trials
from tests.reproduce.report.synthetic import grid, trial_row

KEYS = ["model", "task", "strategy"]


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame([{name: row.get(name) for name in TRIAL_SCHEMA} for row in rows], schema=TRIAL_SCHEMA)


@pytest.fixture
def trials(folder: Path) -> pl.DataFrame:
    return read_trials([folder]).frame


@pytest.fixture
def table(trials: pl.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(trials.drop("null_reasons", "label_names").to_dicts())


def test_accuracy_agrees_with_pandas(trials: pl.DataFrame, table: pd.DataFrame) -> None:
    expected = table.groupby(KEYS)["validation_accuracy"].agg(["mean", "std", "count"])
    found = accuracy(trials)
    assert found.height == len(expected) == 24
    for row in found.to_dicts():
        mean, std, count = expected.loc[tuple(row[key] for key in KEYS)]
        assert row["mean"] == pytest.approx(mean)
        assert row["std"] == pytest.approx(std)
        assert row["n"] == count == 3


def test_ranking_agrees_with_pandas(trials: pl.DataFrame, table: pd.DataFrame) -> None:
    means = table.groupby(KEYS)["validation_accuracy"].mean().round(12).reset_index()
    means["points"] = means.groupby(["model", "task"])["validation_accuracy"].rank() - 1
    expected = means.groupby("strategy")["points"].mean()
    found = ranking(trials)
    assert dict(zip(found["strategy"], found["score"], strict=True)) == pytest.approx(expected.to_dict())
    assert found["score"].is_sorted(descending=True)
    assert set(found["n"]) == {4}


def test_efficiency_agrees_with_pandas(trials: pl.DataFrame, table: pd.DataFrame) -> None:
    table["training_bytes"] = table[["training_bytes", "probe_training_bytes"]].max(axis=1)
    medians = table.groupby(KEYS)[["training_bytes", "seconds_per_10_steps"]].median()
    for row in efficiency(trials).to_dicts():
        own = medians.loc[row["model"], row["task"], row["strategy"]]
        baseline = medians.loc[row["model"], row["task"], "ALL"]
        assert row["memory_ratio"] == pytest.approx(own["training_bytes"] / baseline["training_bytes"])
        assert row["time_ratio"] == pytest.approx(
            own["seconds_per_10_steps"] / baseline["seconds_per_10_steps"]
        )
        assert (row["n_memory"], row["n_speed"], row["exclusive"]) == (3, 3, False)


def test_the_first_10_steps_by_hand() -> None:
    adaptive = {"probe_step_seconds_median": 2.0, "selection_seconds": 13.0, "step_seconds_median": 1.0}
    rows = [
        trial_row("ALL", seconds_per_10_steps=19.0),
        trial_row("ADT-L25", **adaptive, switch_step=5, seconds_per_10_steps=10.0),
        trial_row("ADT-L50", **adaptive, switch_step=12, seconds_per_10_steps=10.0),
    ]
    found = efficiency(frame(*rows))
    # 5 × 2 + 13 + 5 × 1; with a switch after step 10, ten steps of the probe.
    assert found["first_10_steps_seconds"].to_list() == [19.0, 28.0, 20.0]
    assert found["seconds_per_10_steps"].to_list() == [19.0, 10.0, 10.0]


def test_unfrozen_layers_of_the_papers_gemma_by_hand() -> None:
    gemma = {"n_layers": 18, "total_parameters": 1000}
    rows = [
        trial_row("ALL", **gemma, frozen_layers=[], trainable_parameters=1000),
        trial_row("LoRA", **gemma, frozen_layers=[], trainable_parameters=4),
        trial_row("BOT25", **gemma, frozen_layers=[0, 1, 2, 3], trainable_parameters=615),
    ]
    found = paper_figures.other_speed_data(frame(*rows))["unfrozen_share"].to_list()
    assert found == pytest.approx([1.0, 0.004, 14 / 18])


def test_an_adaptive_strategy_needs_the_peak_of_its_whole_run() -> None:
    rows = [
        trial_row("ALL", training_bytes=100),
        trial_row("ADT-L50", training_bytes=60, probe_training_bytes=104),
        trial_row("BOT50", training_bytes=50),
    ]
    found = efficiency(frame(*rows)).select(
        "strategy", "training_bytes", "after_switch_bytes", "memory_ratio"
    )
    assert found.rows() == [("ALL", 100, None, 1.0), ("BOT50", 50, None, 0.5), ("ADT-L50", 104, 60, 1.04)]


def test_figure_5_agrees_with_plain_python(trials: pl.DataFrame) -> None:
    for row in paper_figures.figure_5_data(trials).to_dicts():
        ratios, training = [], []
        for task in ("tiny-cb", "tiny-rte"):
            here = trials.filter(pl.col("model") == row["model"], pl.col("task") == task)
            own = statistics.mean(
                max(filter(None, peaks))
                for peaks in here.filter(pl.col("strategy") == row["strategy"])
                .select("training_bytes", "probe_training_bytes")
                .iter_rows()
            )
            baseline = statistics.mean(here.filter(pl.col("strategy") == "ALL")["training_bytes"])
            ratios.append(own / baseline)
            training.append(own)
        assert row["training"] == pytest.approx(statistics.mean(training))
        assert row["reduction"] == pytest.approx(1 - statistics.mean(ratios))
        assert (row["n"], row["n_tasks"]) == (6, 2)
        assert (row["after_switch"] is not None) == row["strategy"].startswith("ADT")


def test_ranking_by_hand_with_ties_and_a_strategy_run_once() -> None:
    def trial(strategy: str, task: str, *values: float) -> list[dict[str, Any]]:
        return [trial_row(strategy, "m", task, seed, validation_accuracy=v) for seed, v in enumerate(values)]

    rows = [
        # These two means are equal on paper, but not in floating point.
        *trial("ALL", "a", 0.1, 0.5, 0.6),
        *trial("BOT25", "a", 0.4, 0.4, 0.4),
        *trial("TOP25", "a", 0.9),
        *trial("INT25", "a", 0.1),
        *trial("ALL", "b", 0.6),
        *trial("BOT25", "b", 0.5),
    ]
    assert sum([0.1, 0.5, 0.6]) / 3 != sum([0.4, 0.4, 0.4]) / 3
    # Task a: TOP25 3, ALL and BOT25 share (2 + 1) / 2, INT25 0. Task b: ALL 1, BOT25 0.
    found = {row["strategy"]: (row["score"], row["n"]) for row in ranking(frame(*rows)).to_dicts()}
    assert found == {"TOP25": (3.0, 1), "ALL": (1.25, 2), "BOT25": (0.75, 2), "INT25": (0.0, 1)}


def test_other_strategies_do_not_move_the_papers_ranks() -> None:
    accuracies = {"ALL": 0.6, "BOT25": 0.8, "LoRA": 0.7}
    paper = [trial_row(name, "m", "t", validation_accuracy=value) for name, value in accuracies.items()]
    others = [
        trial_row(name, "m", "t", validation_accuracy=value)
        for name, value in (("BOT-E25", 0.9), ("BOT-E50", 0.7), ("BOT-E75", 0.1))
    ]
    alone, beside = ranking(frame(*paper)), ranking(frame(*paper, *others))
    assert beside.filter(group="paper").equals(alone)
    assert alone["score"].to_list() == [2, 1, 0]
    # BOT-E25 beats all three, BOT-E50 is as good as LoRA, BOT-E75 beats none.
    other = beside.filter(group="other")
    assert other.select("strategy", "score", "most").rows() == [
        ("BOT-E25", 2.0, 2.0), ("BOT-E50", 1.0, 2.0), ("BOT-E75", 0.0, 2.0),
    ]  # fmt: skip
    assert not alone["complete"].any()


def test_figure_data_by_hand() -> None:
    rows = [
        trial_row("ALL", "m", "t", 1, validation_accuracy=0.6, training_bytes=100, static_bytes=50),
        trial_row("ALL", "m", "t", 2, validation_accuracy=0.8, training_bytes=300, static_bytes=50),
        trial_row("BOT25", "m", "t", 1, validation_accuracy=0.9, training_bytes=150, static_bytes=50),
        trial_row("BOT25", "m", "t", 2, status="oom"),
        trial_row("TOP25", "m", "t", 1, status="error"),
    ]
    three = {row["strategy"]: row for row in paper_figures.figure_3_data(frame(*rows)).to_dicts()}
    assert list(three) == ["ALL", "BOT25", "TOP25"]
    assert three["ALL"]["mean"] == pytest.approx(0.7)
    assert three["ALL"]["std"] == pytest.approx(0.02**0.5)
    assert (three["BOT25"]["mean"], three["BOT25"]["std"], three["BOT25"]["n"]) == (0.9, None, 1)
    assert (three["TOP25"]["mean"], three["TOP25"]["n"]) == (None, 0)
    assert {row["baseline_mean"] for row in three.values()} == {three["ALL"]["mean"]}
    assert {row["majority"] for row in three.values()} == {0.527}

    five = {row["strategy"]: row for row in paper_figures.figure_5_data(frame(*rows)).to_dicts()}
    assert (five["ALL"]["static"], five["ALL"]["training"], five["ALL"]["reduction"]) == (50, 200, 0)
    assert (five["BOT25"]["training"], five["BOT25"]["reduction"], five["BOT25"]["n"]) == (150, 0.25, 1)
    assert (five["TOP25"]["training"], five["TOP25"]["n"]) == (None, 0)

    other = paper_figures.other_speed_data(frame(*rows))
    assert other["strategy"].to_list() == ["ALL", "BOT25"]
    assert paper_figures.without_speed(frame(*rows), other, of_figure_4=False) == ["TOP25 (m, t)"]
    assert paper_figures.figure_4_data(frame(*rows)).height == 0
    in_paper = frame(*({**row, "task": task} for row in rows for task in ("cb", "mnli", "rte")))
    assert set(paper_figures.figure_4_data(in_paper)["task"]) == {"cb", "mnli"}
    assert set(paper_figures.other_speed_data(in_paper)["task"]) == {"rte"}
    assert paper_figures.without_result(frame(*rows)) == ["TOP25"]


def test_exclusive_trials_displace_shared_ones_in_their_experiment_only() -> None:
    rows = [
        trial_row("ALL", task="a", exclusive=True, seconds_per_10_steps=1.0),
        trial_row("ALL", task="a", seed=43, exclusive=False, seconds_per_10_steps=9.0),
        trial_row("BOT25", task="a", exclusive=False),
        trial_row("ALL", task="b", exclusive=False, seconds_per_10_steps=5.0),
    ]
    trials = frame(*rows)
    chosen = speed_trials(trials).select("strategy", "task", "seed", "exclusive").rows()
    assert chosen == [("ALL", "a", 42, True), ("ALL", "b", 42, False)]
    assert paper_figures.shared_experiments(trials) == [("tiny-gemma", "b")]
    by_cell = {(row["task"], row["strategy"]): row for row in efficiency(trials).to_dicts()}
    assert by_cell["a", "ALL"]["seconds_per_10_steps"] == 1.0
    assert by_cell["a", "BOT25"]["seconds_per_10_steps"] is None
    drawn = paper_figures.other_speed_data(trials)
    assert paper_figures.without_speed(trials, drawn, of_figure_4=False) == ["BOT25 (tiny-gemma, a)"]


def test_times_of_one_kind_of_device_count_in_each_experiment() -> None:
    """As on a cluster whose small GPUs run, alone, what fits them, and its large ones share themselves."""
    large, small = {"gpu_name": "large", "exclusive": False}, {"gpu_name": "small", "exclusive": True}
    rows = [
        trial_row("ALL", task="a", **large, seconds_per_10_steps=4.0),
        trial_row("BOT75", task="a", **large, seconds_per_10_steps=2.0),
        trial_row("BOT75", task="a", seed=43, **small, seconds_per_10_steps=40.0),
        trial_row("ALL", task="b", **small, seconds_per_10_steps=50.0),
        trial_row("ALL", task="b", seed=43, **large, seconds_per_10_steps=5.0),
        trial_row("ALL", task="c", **large),
    ]
    trials = frame(*rows)
    chosen = speed_trials(trials).select("strategy", "task", "seed", "exclusive").rows()
    assert chosen == [
        ("ALL", "a", 42, False), ("BOT75", "a", 42, False), ("ALL", "b", 42, True), ("ALL", "c", 42, False)
    ]  # fmt: skip
    by_cell = {(row["task"], row["strategy"]): row for row in efficiency(trials).to_dicts()}
    assert by_cell["a", "BOT75"]["time_ratio"] == 0.5
    assert by_cell["a", "BOT75"]["n_memory"] == 2
    predicted = {(row["task"], row["strategy"]): row for row in table_predictions(trials).to_dicts()}
    assert predicted["a", "BOT75"]["measured_time_ratio"] == 0.5
    assert timed_devices(trials) == ["large", "small"]
    assert timed_devices(frame(*rows[:2], *rows[5:])) == []
    (notice,) = [
        text
        for text in notices(ReportData(trials, trials, trials, None, None, None, (), ()))
        if "kinds of devices" in text
    ]
    assert "(large and small)" in notice


def test_a_cell_counts_once_and_the_first_folder_wins() -> None:
    rows = [
        trial_row("ALL", status="error", run_id="failed"),
        trial_row("ALL", run_id="first", validation_accuracy=0.5),
        trial_row("ALL", run_id="second", validation_accuracy=0.9),
    ]
    assert one_per_cell(frame(*rows))["run_id"].to_list() == ["first"]
    assert accuracy(frame(*rows)).select("mean", "n").row(0) == (0.5, 1)


def test_without_all_the_ratios_are_null() -> None:
    found = efficiency(frame(trial_row("BOT25"), trial_row("TOP25")))
    assert found["memory_ratio"].null_count() == found["time_ratio"].null_count() == 2
    assert paper_figures.figure_5_data(frame(trial_row("BOT25")))["reduction"].to_list() == [None]


def test_order_of_strategies() -> None:
    names = [
        "BIAS",
        "ADT-H25",
        "TOP75",
        "BOT40",
        "BOT25",
        "INT33",
        "LoRA",
        "ALL",
        "ADT-L50",
        "RANDOM50",
        "BOT5",
    ]
    ordered = [
        "ALL",
        "LoRA",
        "INT33",
        "BOT5",
        "BOT25",
        "BOT40",
        "TOP75",
        "ADT-L50",
        "ADT-H25",
        "BIAS",
        "RANDOM50",
    ]
    assert strategies_in_order(names) == ordered
    assert kind_and_percent("ADT-L12.5") == ("ADT-L", 12.5)
    assert kind_and_percent("LoRA") == ("LoRA", None)


def test_ranks_are_stated_only_where_the_papers_strategies_are_complete() -> None:
    def stated(*rows: dict[str, Any]) -> list[str]:
        trials = frame(*rows)
        return findings(ReportData(trials, trials, trials, None, None, None, (), ()))

    rows = grid(tasks=("tiny-rte",), seeds=(42,))
    (sentence,) = stated(*rows, trial_row("BOT-E25", validation_accuracy=1.0))
    assert sentence.startswith("Highest ranking scores: ")
    assert "BOT-E25" not in sentence
    assert stated(*rows[:-1]) == []
    assert stated(*({**row, "validation_accuracy": 0.5} for row in rows)) == []
    assert stated(*({**row, "weights": "random"} for row in rows)) == []
