"""The Parquet contract: whole or not there, and every null explained."""

from __future__ import annotations

import multiprocessing
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from reproduce.store.artifacts import read_folder
from reproduce.store.contents import checked_contents
from reproduce.store.parquet import (
    TRIAL_SCHEMA,
    StoreError,
    TrialResult,
    read_trials,
    relative_path,
    scan_table,
    write_trial,
)
from reproduce.store.trial_row import SCHEMA_VERSION, TrialRow
from tests.reproduce.report import synthetic


def row(**values: Any) -> dict[str, Any]:
    """The columns of a row in which everything but identity, recipe and inputs is null, with a reason."""
    identity = {
        "run_id": "a1",
        "model": "m",
        "task": "t",
        "strategy": "BOT25",
        "seed": 42,
        "schema_version": 1,
    }
    inputs = ("weights", "model_id", "weights_hash", "tokenizer_hash", "dataset_id", "dataset_fingerprint")
    example = synthetic.trial_row("BOT25")
    identity |= {name: example[name] for name in example if name in inputs or name.startswith("recipe_")}
    identity |= {"space": "test", "attempt": 1, "kind": "BOT"}
    known = identity | {"status": "ok", "frozen_layers": [0, 1], "validation_accuracy": 0.5} | values
    nulls = [name for name in TRIAL_SCHEMA if name not in known and name != "null_reasons"]
    return known | {"null_reasons": [{"column": name, "reason": "a test"} for name in nulls]}


def result(**values: Any) -> TrialResult:
    steps = {"step": [1, 2], "phase": ["train"] * 2, "loss": [0.5, 0.4], "learning_rate": [0.1, 0.0]}
    predictions = {"example_id": ["x"], "label": [1], "prediction": [0], "logits": [[0.25, -1.5]]}
    return TrialResult(TrialRow.from_columns(row(**values)), steps, predictions)


def files(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_trial(tmp_path, result())
    path = "model=m/task=t/strategy=BOT25/seed=42-a1.parquet"
    assert files(tmp_path) == [f"{table}/{path}" for table in ("predictions", "steps", "trials")]
    table = read_trials([tmp_path])
    assert not table.damaged
    assert dict(table.frame.drop("artifacts").schema) == TRIAL_SCHEMA
    stored = table.frame.to_dicts()[0]
    assert (stored["frozen_layers"], stored["validation_accuracy"], stored["seed"]) == ([0, 1], 0.5, 42)
    assert scan_table([read_trials([tmp_path])], "steps").collect()["loss"].to_list() == [0.5, 0.4]
    assert scan_table([read_trials([tmp_path])], "predictions").collect()["logits"].to_list() == [
        [0.25, -1.5]
    ]


def test_any_name_is_a_folder() -> None:
    path = relative_path("org/model=x", "t", "ADT-L50", 1, "id")
    assert path.parts == ("model=org%2Fmodel%3Dx", "task=t", "strategy=ADT-L50", "seed=1-id.parquet")


def test_silent_nulls_and_unknown_columns_are_refused(tmp_path: Path) -> None:
    silent = row()
    silent["null_reasons"] = silent["null_reasons"][1:]
    with pytest.raises(StoreError, match="null without a reason in column"):
        write_trial(tmp_path, TrialResult(TrialRow.from_columns(silent)))
    with pytest.raises(StoreError, match="no column accuracy"):
        TrialRow.from_columns(row() | {"accuracy": 1.0})
    assert not files(tmp_path)


def test_writing_again_replaces(tmp_path: Path) -> None:
    write_trial(tmp_path, result(status="error"))
    write_trial(tmp_path, result(status="ok"))
    assert read_trials([tmp_path]).frame["status"].to_list() == ["ok"]
    assert len(files(tmp_path)) == 3


@pytest.mark.parametrize("table", ["steps", "predictions"])
def test_a_trial_is_finished_only_with_all_its_files(tmp_path: Path, table: str) -> None:
    write_trial(tmp_path, result())
    write_trial(tmp_path, result(run_id="b2", seed=43))
    (tmp_path / table / relative_path("m", "t", "BOT25", 42, "a1")).unlink()
    trials = read_trials([tmp_path])
    assert trials.frame["run_id"].to_list() == ["b2"]
    assert [(d.path.parts[-5], d.reason) for d in trials.damaged] == [(table, "the file is missing")]
    assert set(scan_table([read_trials([tmp_path])], "steps").collect()["run_id"]) == {"b2"}


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _other_version(path: Path) -> None:
    pl.read_parquet(path).with_columns(schema_version=pl.lit(99, pl.Int32)).drop("space").write_parquet(path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_truncate, "cut short"),
        (lambda path: path.write_bytes(b""), "cut short"),
        (lambda path: path.write_bytes(b"PAR1 nonsense PAR1"), ""),
        (_other_version, f"has schema version 99; this program reads versions up to {SCHEMA_VERSION}"),
    ],
)
def test_a_damaged_file_is_named_and_the_others_read(tmp_path: Path, damage: Any, reason: str) -> None:
    write_trial(tmp_path, result())
    write_trial(tmp_path, result(run_id="b2", seed=43))
    victim = tmp_path / "trials" / relative_path("m", "t", "BOT25", 42, "a1")
    damage(victim)
    table = read_trials([tmp_path])
    assert table.frame["run_id"].to_list() == ["b2"]
    assert [d.path for d in table.damaged] == [victim]
    assert reason in table.damaged[0].reason


def test_a_write_that_fails_leaves_nothing_half_written(tmp_path: Path) -> None:
    bad = TrialResult(TrialRow.from_columns(row()), {"step": [1], "loss": ["not a number"]}, {})
    with pytest.raises((TypeError, pl.exceptions.PolarsError)):
        write_trial(tmp_path, bad)
    assert not files(tmp_path)


def _write(root: Path, number: int) -> None:
    for _ in range(20):
        write_trial(root, result(validation_accuracy=number / 10))


def test_two_writers_of_one_trial_leave_one_whole_trial(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(tmp_path, number)) for number in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    table = read_trials([tmp_path])
    assert not table.damaged
    assert table.frame["validation_accuracy"].to_list() in ([0.1], [0.2])
    assert len(files(tmp_path)) == 3


def test_a_folder_without_trials_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not an artifact folder"):
        read_trials([tmp_path / "nowhere"])


def test_the_store_needs_no_torch() -> None:
    code = "import sys, reproduce.store.parquet; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_published_rows_are_read_without_steps_and_predictions(tmp_path: Path) -> None:
    rows = [synthetic.trial_row("ALL"), synthetic.trial_row("BOT25")]
    source = synthetic.write_rows(tmp_path / "source", rows)
    published = tmp_path / "published"
    published.mkdir()
    read_trials([source]).frame.drop("artifacts").write_parquet(published / "trials.parquet")
    progress = read_folder(published)
    assert (progress.done, len(progress.listed), progress.missing) == (2, 2, [])
    assert set(progress.rows["strategy"]) == {"ALL", "BOT25"}
    assert scan_table([read_trials([published])], "steps") is None
    (published / "trials.parquet").write_bytes(b"PAR1")
    assert "trials.parquet" in str(read_folder(published).table.damaged[0].path)


def _many_layers(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(
        frozen_layers=pl.lit(pl.Series([pl.zeros(2 * 10**6, dtype=pl.Int64, eager=True)]))
    )


def _many_rows(frame: pl.DataFrame) -> pl.DataFrame:
    return pl.DataFrame({"step": pl.zeros(10**7 + 1, dtype=pl.Int8, eager=True)})


@pytest.mark.parametrize(
    ("table", "change", "reason"),
    [
        ("trials", _many_layers, "bytes in 1 rows, more than trials have"),
        ("steps", _many_rows, "holds 10,000,001 rows of .* bytes in all, more than a trial has"),
        ("predictions", _many_rows, "holds 10,000,001 rows of .* bytes in all, more than a trial has"),
    ],
)
def test_a_file_that_is_small_on_disk_alone(table: str, change: Any, reason: str, tmp_path: Path) -> None:
    write_trial(tmp_path, result())
    write_trial(tmp_path, result(run_id="b2", seed=43))
    path = tmp_path / table / relative_path("m", "t", "BOT25", 42, "a1")
    change(pl.read_parquet(path, hive_partitioning=False)).write_parquet(
        path, compression="zstd", statistics=False
    )
    assert path.stat().st_size < 64 << 10
    trials = read_trials([tmp_path])
    assert trials.frame["run_id"].to_list() == ["b2"]
    assert [entry.path for entry in trials.damaged] == [path]
    assert re.search(reason, trials.damaged[0].reason)


@pytest.mark.parametrize("value", [None, 10**12, -1])
@pytest.mark.parametrize("column", ["recipe_steps", "n_validation", "recipe_evaluate_every"])
def test_a_row_may_claim_any_number(column: str, value: int | None, tmp_path: Path) -> None:
    """It was listed up to that number, or ended in a traceback."""
    write_trial(tmp_path, result())
    path = tmp_path / "trials" / relative_path("m", "t", "BOT25", 42, "a1")
    frame = pl.read_parquet(path, hive_partitioning=False)
    number = pl.lit(value, dtype=frame.schema[column])
    frame.with_columns(number.alias(column), row_checksum=pl.lit(None, pl.String)).write_parquet(path)
    assert checked_contents(read_trials([tmp_path])).damaged
