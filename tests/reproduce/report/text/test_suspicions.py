"""Silent errors that are planted in the trials of a sweep: the report and ``verify`` name them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from reproduce.report.analysis.report_data import collect_data
from reproduce.report.text.suspicions import suspicions
from reproduce.store.artifacts import read_folder
from reproduce.store.parquet import TrialResult, write_trial
from reproduce.store.publish import publish
from reproduce.store.trial_row import TrialRow
from reproduce.verify import Check, verify
from tests.reproduce.report.synthetic import grid
from tests.reproduce.verify.test_verify import folder_manifest

LABELS = [0, 1, 1]


def folder(root: Path, *, constant: Sequence[int] = (), copied: int | None = None, **changes: Any) -> Path:
    """Trials of ALL with seeds 42 to 44.

    Args:
        constant: seeds whose model predicts one class.
        copied: the seed that has the numbers of seed 42.
    """
    rows = grid(
        tasks=("tiny-rte",),
        strategies=("ALL",),
        recipe_steps=2,
        recipe_probe_steps=1,
        n_validation=3,
        **changes,
    )
    for row in rows:
        seed = 42 if row["seed"] == copied else row["seed"]
        chosen = [1, 1, 1] if row["seed"] in constant else [0, 1, 1]
        row["validation_accuracy"] = sum(a == b for a, b in zip(chosen, LABELS, strict=True)) / 3
        steps = {"step": [1, 2], "loss": [0.7, seed / 50], "grad_norm": [1.0, 0.5]}
        logits = [[seed / 50, 0.0] if label == 0 else [0.0, seed / 50] for label in chosen]
        predictions = {
            "example_id": ["0", "1", "2"],
            "label": LABELS,
            "prediction": chosen,
            "logits": logits,
        }
        write_trial(root, TrialResult(TrialRow.from_columns(row), steps, predictions))
    folder_manifest(root, rows)
    return root


def told(root: Path) -> list[str]:
    return suspicions(collect_data([root], ()))


def checks(root: Path) -> dict[str, Check]:
    return {check.name: check for check in verify(read_folder(root))}


def test_nothing_is_told_of_sound_trials(tmp_path: Path) -> None:
    root = folder(tmp_path / "sound")
    assert told(root) == []
    assert checks(root)["classes"].passed is True
    assert checks(root)["seeds"].passed is True


def test_one_class_for_every_example_is_told(tmp_path: Path) -> None:
    root = folder(tmp_path / "constant", constant=[43])
    (text,) = told(root)
    assert text.startswith("1 trial of 3 predicted one class for every example")
    assert "ALL (tiny-gemma, tiny-rte, seed 43)" in text
    check = checks(root)["classes"]
    assert (check.passed, check.sentence) == (None, "1 trials predict one class for every example")
    assert check.details == ("tiny-gemma/tiny-rte/ALL/43",)


def test_random_weights_may_predict_one_class(tmp_path: Path) -> None:
    assert told(folder(tmp_path / "random", constant=[43], weights="random")) == []


def test_equal_numbers_of_two_seeds_are_told(tmp_path: Path) -> None:
    root = folder(tmp_path / "copied", copied=44)
    losses, logits = told(root)
    assert losses.startswith(
        "2 trials of different seeds have the same losses and gradient norms in every step"
    )
    assert logits.startswith("2 trials of different seeds have the same logits for every example")
    for text in (losses, logits):
        assert "seed 42) and ALL (tiny-gemma, tiny-rte, seed 44)" in text
    assert checks(root)["seeds"].passed is False


@pytest.mark.parametrize("table", ["steps", "predictions"])
def test_published_tables_tell_it_too(table: str, tmp_path: Path) -> None:
    root = folder(tmp_path / "copied", copied=44)
    publish([root], read_folder(root), tmp_path / "out", tables=(table,))
    (text,) = told(tmp_path / "out")
    assert "2 trials of different seeds" in text
    if table == "predictions":
        assert checks(tmp_path / "out")["seeds"].passed is False
