"""What the headline's strategies cost and gain, against values worked out by hand."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from reproduce.report.analysis import headline
from reproduce.report.analysis.claims import evidence_estimators
from reproduce.report.analysis.headline import QUANTITIES, Comparison
from reproduce.report.text.headline import headline_layout, sentence
from tests.reproduce.report.analysis.test_aggregates import frame
from tests.reproduce.report.synthetic import trial_row

# Per strategy: accuracy, training memory in MiB, seconds per 10 steps.
PLANTED = {
    "ALL": (0.80, 1000, 3.0),
    "LoRA": (0.70, 800, 4.0),
    "BOT25": (0.79, 700, 2.4),
    "BOT50": (0.77, 500, 1.5),
}


def planted(
    strategies: tuple[str, ...] = tuple(PLANTED), seeds: tuple[int, ...] = (42, 43), **changes: Any
) -> pl.DataFrame:
    """Two tasks; the second seed is a point of accuracy better for all but ALL."""
    rows = []
    for name in strategies:
        accuracy, memory, seconds = PLANTED.get(name, PLANTED["BOT25"])
        for task in ("tiny-rte", "tiny-cb"):
            for place, seed in enumerate(seeds):
                value = accuracy + 0.01 * place * (name != "ALL")
                measured = {"validation_accuracy": value, "training_bytes": memory << 20}
                measured |= {"seconds_per_10_steps": seconds, "probe_training_bytes": None}
                rows.append(trial_row(name, task=task, seed=seed, **measured | changes))
    return frame(*rows)


def comparisons(trials: pl.DataFrame) -> list[Comparison]:
    return headline.comparisons(trials, evidence_estimators(trials))


def values(trials: pl.DataFrame) -> dict[tuple[str, str], list[float | None]]:
    return {
        (row.strategy, row.against): [
            None if (estimate := row.estimates[name]) is None else estimate.value for name in QUANTITIES
        ]
        for row in comparisons(trials)
    }


def test_the_numbers_are_differences_to_all_and_to_lora_in_parts_of_all() -> None:
    compared = values(planted())
    # The second seed adds half a point to the mean; ALL / own − 1 = 3.0 / 2.4 − 1, LoRA's is 3 / 4 − 1.
    assert compared[("BOT25", "ALL")] == pytest.approx([-0.005, 0.3, 0.25])
    assert compared[("BOT50", "ALL")] == pytest.approx([-0.025, 0.5, 1.0])
    assert compared[("BOT25", "LoRA")] == pytest.approx([0.09, 0.1, 0.5])
    assert compared[("BOT50", "LoRA")] == pytest.approx([0.07, 0.3, 1.25])
    assert list(compared) == [("BOT25", "ALL"), ("BOT50", "ALL"), ("BOT25", "LoRA"), ("BOT50", "LoRA")]
    (first, *_) = comparisons(planted())
    accuracy = first.estimates["accuracy"]
    assert accuracy is not None
    # ALL and BOT25 in two tasks with two seeds each.
    assert (accuracy.n, accuracy.n_blocks, accuracy.n_seeds) == (8, 2, 2)
    assert accuracy.low is not None
    assert accuracy.high is not None
    assert accuracy.low <= accuracy.value <= accuracy.high


def test_a_sentence_has_value_unit_interval_and_n() -> None:
    (first, *_) = comparisons(planted())
    text = sentence(first).replace("\N{NO-BREAK SPACE}", " ")
    assert text.startswith("BOT25 against ALL: accuracy −0.5 points (95 % interval −")
    assert "; n = 8 trials in 2 experiments), training memory saved +30.0 % of ALL's (" in text
    assert "training speed gained +25.0 % of ALL's (" in text
    table = headline_layout([first])
    assert [column.header for column in table.columns[1:]] == [
        "accuracy, points",
        "training memory saved, % of ALL's",
        "training speed gained, % of ALL's",
    ]
    assert table.rows[0][0].text == "BOT25 against ALL"
    assert table.rows[0][2].text.startswith("+30.0 (")
    assert table.frame["memory_value"].to_list() == pytest.approx([0.3])


def test_one_seed_gives_values_without_intervals() -> None:
    (first, *_) = comparisons(planted(seeds=(42,)))
    assert sentence(first).count("no interval: one seed") == 2
    assert "training memory saved +30.0 % of ALL's (models 30.0 to 30.0;" in sentence(first)
    assert "accuracy −1.0 points" in sentence(first)


def test_random_weights_give_no_accuracy() -> None:
    compared = comparisons(planted(weights="random"))
    assert [row.estimates["accuracy"] for row in compared] == [None] * 4
    assert "accuracy" not in sentence(compared[0])
    assert headline_layout(compared).rows[0][1].text == "–"
    assert sentence(compared[0]).startswith("BOT25 against ALL: training memory saved +30.0 % of ALL's")


def test_missing_strategies_leave_out_their_comparisons() -> None:
    assert list(values(planted(("ALL", "BOT50")))) == [("BOT50", "ALL")]
    assert list(values(planted(("LoRA", "BOT25")))) == [("BOT25", "LoRA")]
    # Without ALL there is nothing that memory and speed are relative to.
    assert values(planted(("LoRA", "BOT25")))[("BOT25", "LoRA")] == [pytest.approx(0.09), None, None]
    assert values(planted(("ALL", "LoRA"))) == {}


def test_other_strategies_take_the_place_of_absent_ones() -> None:
    assert list(values(planted(("ALL", "TOP25", "RND10")))) == [("TOP25", "ALL"), ("RND10", "ALL")]


def test_failed_trials_alone_give_no_headline() -> None:
    assert comparisons(frame(trial_row("ALL", status="oom"), trial_row("BOT25", status="error"))) == []


def test_trials_that_are_evidence_count_alone() -> None:
    paper = {
        "recipe_learning_rate": 5e-5, "recipe_precision": "bf16-mixed", "recipe_padding": "max_length",
        "device": "cuda", "exclusive": True,
    }  # fmt: skip
    rows = [
        trial_row(name, model, "tiny-mnli", seed, training_bytes=size, weights="random", **paper)
        for model in ("gemma-2b", "phi-2", "minicpm-2b-128k")
        for name, size in (("ALL", 1000), ("BOT25", 700))
        for seed in (42, 43)
    ]
    others = [
        trial_row(name, "gemma-2b", "rte", training_bytes=size, **paper | {"recipe_padding": "longest"})
        for name, size in (("ALL", 1000), ("BOT25", 900))
    ]
    (row,) = comparisons(frame(*rows, *others))
    memory = row.estimates["memory"]
    assert memory is not None
    assert (memory.value, memory.n_blocks) == (pytest.approx(0.3), 3)
