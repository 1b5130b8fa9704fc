"""Exact tests on predictions against counts made by hand and by plain Python."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from scipy import stats

from reproduce.report import build
from reproduce.report.analysis.report_data import ReportData, collect_data
from reproduce.report.text.mcnemar import prediction_differences
from reproduce.store.parquet import TrialResult, write_trial
from reproduce.store.schema import PREDICTION_SCHEMA
from reproduce.store.trial_row import TrialRow
from tests.reproduce.report.analysis.test_aggregates import frame
from tests.reproduce.report.synthetic import trial_row


def predictions(*trials: tuple[dict[str, Any], dict[str, bool]]) -> pl.LazyFrame:
    """Predictions that are right for the examples named True."""
    rows = [
        {"run_id": row["run_id"], "example_id": name, "label": 1, "prediction": int(right), "logits": None}
        for row, examples in trials
        for name, right in examples.items()
    ]
    return pl.LazyFrame(rows, schema=PREDICTION_SCHEMA)


def compare(rows: list[dict[str, Any]], table: pl.LazyFrame) -> pl.DataFrame:
    trials = frame(*rows)
    found = prediction_differences(ReportData(trials, trials, trials, None, table, None, (), ()))
    assert found is not None
    return found


def test_discordant_examples_by_hand() -> None:
    one, other = trial_row("ALL", n_validation=8), trial_row("BOT25", n_validation=8)
    names = "abcdefgh"
    first = {name: name in "abcdefg" for name in names}
    # In another order: pairs are made by example, not by place.
    second = {name: name in "ah" for name in reversed(names)}
    (row,) = compare([one, other], predictions((one, first), (other, second))).to_dicts()
    assert (row["strategy"], row["n"], row["n_examples"]) == ("BOT25", 1, 8)
    assert (row["only_baseline_right"], row["only_strategy_right"]) == (6, 1)
    assert row["difference"] == -5 / 8
    # Seven disagreements, one to the strategy: 2 (1 + 7) / 2 ** 7.
    assert row["least_p_holm"] == pytest.approx(16 / 128)
    assert row["n_significant"] == 0


def test_seeds_are_paired_and_their_p_values_adjusted() -> None:
    source = random.Random(3)
    rows, known = [], {}
    for strategy in ("ALL", "TOP50"):
        for seed, chance in ((42, 0.9), (43, 0.5), (44, 0.7)):
            row = trial_row(strategy, seed=seed, n_validation=200)
            chance = 0.9 if strategy == "ALL" else chance
            known[strategy, seed] = {f"e{i}": source.random() < chance for i in range(200)}
            rows.append((row, known[strategy, seed]))
    found = compare([row for row, _ in rows], predictions(*rows)).to_dicts()[0]
    p_values = []
    for seed in (42, 43, 44):
        pairs = [(known["ALL", seed][f"e{i}"], known["TOP50", seed][f"e{i}"]) for i in range(200)]
        first, second = pairs.count((True, False)), pairs.count((False, True))
        p_values.append(stats.binomtest(first, first + second).pvalue)
    assert found["n"] == 3
    assert found["least_p_holm"] == pytest.approx(3 * min(p_values))
    assert found["n_significant"] == 2


def test_only_trials_of_the_same_examples_are_compared() -> None:
    rows = [trial_row(s, seed=seed, n_validation=2) for s in ("ALL", "LoRA") for seed in (42, 43)]
    both, apart = {"a": True, "b": True}, {"a": True, "c": True}
    table = predictions((rows[0], both), (rows[1], both), (rows[2], both), (rows[3], apart))
    assert compare(rows, table)["n"].to_list() == [1]
    assert compare(rows, predictions()).height == 0
    assert compare([rows[2]], predictions((rows[2], both))).height == 0


def test_a_trial_with_damaged_predictions_is_listed_and_left_out(tmp_path: Path) -> None:
    rows = [trial_row(strategy, n_validation=1) for strategy in ("ALL", "LoRA")]
    for row in rows:
        columns = {"example_id": ["a"], "label": [1], "prediction": [1], "logits": [[0.0, 1.0]]}
        write_trial(
            tmp_path / "whole", TrialResult(TrialRow.from_columns(row), {"step": [1], "loss": [0.5]}, columns)
        )
    assert prediction_differences(collect_data([tmp_path / "whole"], [])) is not None
    for table in ("predictions", "steps"):
        path = next((tmp_path / "whole" / table).rglob("*.parquet"))
        content = path.read_bytes()
        # Both ends are those of a Parquet file, what lies between is not.
        path.write_bytes(content[:4] + bytes(len(content) - 8) + content[-4:])
    summary = build([tmp_path / "whole"], tmp_path / "out")
    text = summary.page.read_text("utf-8")
    assert "1 of 2 trials have no result (1 damaged)" in text
    assert "Example by example" not in text
    assert (summary.ok, summary.damaged) == (1, 1)
