"""Folders that earlier versions wrote are read, reported, verified, published and continued.

``tests/data/schema-<n>`` was written by the code that had schema version n, with the command::

    reproduce run embedded --strategies ALL,LoRA,INT25,BOT50,TOP25,ADT-L50 --seeds 42 --set steps=12 \
--artifacts DIR

The same holds for a program with another recipe value, column and kind: a copy of this one with three edits.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lfreeze.recipe import Recipe
from reproduce.plan.spec import introduced_values
from reproduce.store.artifacts import ArtifactError, prepare_folder, read_folder
from reproduce.store.parquet import read_trials, relative_path
from reproduce.store.schema import SCHEMA_VERSION, TRIAL_COLUMNS, TRIAL_SCHEMA
from tests.support.old_folders import DATA, NEWER, SWEPT, contents, copied, specs
from tests.support.program import CODE, Program

FOLDERS = ("schema-1", "schema-2", "schema-2-published")
# What schema version 2 introduced.
SINCE_2 = {
    "weights": "pretrained",
    "recipe_max_validation_examples": 0,
    "n_train_available": None,
    "n_validation_available": None,
    "predicted_step_flops": None,
}
RUN_IDS = {
    ("tiny-rte", "ALL"): "b10386c96c8a4cfc",
    ("tiny-rte", "LoRA"): "a409651c923f36b5",
    ("tiny-rte", "ADT-L50"): "30311094bf7ea484",
    ("tiny-cb", "INT25"): "07f6ccb4f881baa4",
    ("tiny-cb", "BOT50"): "6cc8456f906d3c45",
    ("tiny-cb", "TOP25"): "614a893cc24a08aa",
}
EARLIER_RUN_IDS = {
    ("tiny-rte", "ALL"): "28dd1195a33a25de",
    ("tiny-cb", "BOT50"): "53c75059dbe1f619",
    ("tiny-cb", "ADT-L50"): "60efa9e5dd476eff",
}


def test_run_ids_are_those_of_the_folder() -> None:
    ids = {(spec.factors.task, spec.factors.strategy): spec for spec in specs()}
    assert {key: ids[key].run_id for key in RUN_IDS} == RUN_IDS
    for key, run_id in EARLIER_RUN_IDS.items():
        assert ids[key].earlier_run_ids == (run_id,)
    for name in SWEPT:
        listed = {trial.run_id for trial in read_folder(DATA / name).listed}
        assert all(listed & set(spec.all_run_ids) for spec in ids.values())


def test_a_value_that_earlier_versions_lacked_is_another_trial() -> None:
    ids = {spec.run_id for spec in specs()}
    for spec in specs(max_validation_examples="100"):
        assert spec.run_id not in ids
        assert spec.earlier_run_ids == ()


def test_every_recipe_value_of_a_later_version_has_its_first_default() -> None:
    first = json.loads((DATA / "schema-1" / "sweep.json").read_text("utf-8"))["recipe"]
    assert {field.name for field in dataclasses.fields(Recipe)} == {*first, *introduced_values()}


@pytest.mark.parametrize("name", FOLDERS)
def test_rows_are_completed(name: str) -> None:
    table = read_trials([DATA / name])
    assert (table.frame.height, table.damaged) == (12, ())
    assert dict(table.frame.drop("artifacts").schema) == TRIAL_SCHEMA
    for row in table.frame.to_dicts():
        reasons = {entry["column"]: entry["reason"] for entry in row["null_reasons"]}
        assert set(reasons) == {column for column in TRIAL_COLUMNS if row[column] is None}
        if row["schema_version"] == 1:
            assert {column: row[column] for column in SINCE_2} == SINCE_2
            assert reasons["n_train_available"] == "recorded since schema version 2"


def test_folders_of_two_versions_are_one_table() -> None:
    frame = read_trials([DATA / name for name in SWEPT]).frame
    assert frame.height == 24
    assert set(frame["schema_version"]) == {1, 2}
    published = Path("artifacts/reference/embedded-full")
    assert read_trials([CODE / published]).frame.height == 1275


@pytest.mark.parametrize("name", FOLDERS)
def test_status_report_verify_and_publish(name: str, version: str, program: Program, tmp_path: Path) -> None:
    folder = copied(name, tmp_path)
    before = contents(folder)
    assert "12 done, 0 running, 0 failed, 0 missing, of 12" in program("status", folder)
    for reference in FOLDERS:
        text = program("verify", folder, "--against", DATA / reference)
        assert "FAILED" not in text
        assert "12 of the 12 trials" in text
    program("publish", folder, tmp_path / "out", "--with-steps", "--with-predictions")
    assert pl.read_parquet(tmp_path / "out" / "steps.parquet").height == 12 * 12
    assert "FAILED" not in program("verify", tmp_path / "out", "--against", folder)
    text = program("report", folder, "--out", tmp_path / "report")
    assert "12 of 12 trials succeeded" in text
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert ("energy_joules" in page) == (version == "later")
    assert contents(folder) == before


def test_a_newer_file_is_never_run_again(tmp_path: Path) -> None:
    folder = copied("schema-2", tmp_path)
    spec = next(spec for spec in specs() if spec.factors.strategy == "BOT50")
    path = folder / "trials" / relative_path(**spec.factors.cell, run_id=spec.run_id)
    newer = pl.lit(SCHEMA_VERSION + 1, pl.Int32).alias("schema_version")
    pl.read_parquet(path, hive_partitioning=False).with_columns(newer).write_parquet(path)
    with pytest.raises(ArtifactError, match=f"{NEWER}$"):
        read_folder(folder).has_result(spec)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"extra": pl.lit(1.0)}, None),
        (
            {"validation_accuracy": pl.lit("high")},
            "has a column validation_accuracy of type String, not Float64",
        ),
        ({"schema_version": None}, "has no schema version"),
        ({"run_id": None}, "lacks the column run_id"),
    ],
)
def test_columns_of_others_are_ignored_and_broken_ones_named(
    change: dict[str, Any], reason: str | None, tmp_path: Path
) -> None:
    folder = copied("schema-2", tmp_path)
    victim = sorted((folder / "trials").rglob("*.parquet"))[3]
    frame = pl.read_parquet(victim, hive_partitioning=False)
    for name, value in change.items():
        frame = frame.drop(name) if value is None else frame.with_columns(value.alias(name))
    frame.write_parquet(victim)
    table = read_trials([folder])
    assert table.frame.height == 12 - (reason is not None)
    assert [(entry.path, entry.reason) for entry in table.damaged] == ([(victim, reason)] if reason else [])


@pytest.mark.parametrize("name", SWEPT)
def test_other_recipe_values_are_still_refused(name: str, reproduce: Program, tmp_path: Path) -> None:
    folder = copied(name, tmp_path)
    for key, here, now in (("steps", "12", "13"), ("max_validation_examples", "0", "100")):
        arguments = ("run", "embedded", "--strategies", "ALL", "--seeds", "42", "--set", "steps=12")
        output = reproduce(*arguments, "--set", f"{key}={now}", "--artifacts", folder, expect=2)
        assert f"belongs to another recipe: {key} = {here} there, {now} now" in output


def test_a_failed_trial_of_an_earlier_version_is_listed_under_its_present_id(tmp_path: Path) -> None:
    folder = copied("schema-1", tmp_path)
    spec = next(s for s in specs() if (s.factors.task, s.factors.strategy) == ("tiny-cb", "BOT50"))
    (earlier,) = spec.earlier_run_ids
    path = relative_path(**spec.factors.cell, run_id=earlier)
    failed = pl.lit("error").alias("status")
    pl.read_parquet(folder / "trials" / path, hive_partitioning=False).with_columns(failed).write_parquet(
        folder / "trials" / path
    )
    before = read_folder(folder)
    assert (before.has_result(spec), before.attempts(spec)) == (False, 1)
    prepare_folder(folder, specs(), json.loads((folder / "sweep.json").read_text("utf-8"))["recipe"])
    after = read_folder(folder)
    assert [trial.run_id for trial in after.missing] == [spec.run_id]
    assert (after.done, len(after.listed), after.failed.height) == (11, 12, 0)
    assert (folder / "superseded" / "trials" / path).is_file()


def test_a_kind_that_is_not_installed_is_read(reproduce: Program, tmp_path: Path) -> None:
    folder = copied("schema-2", tmp_path)
    manifest = json.loads((folder / "sweep.json").read_text("utf-8"))
    for entry in [entry for entry in manifest["trials"] if entry["strategy"] == "TOP25"]:
        old = relative_path(**entry)
        entry["strategy"] = "ODD25"
        for table in ("trials", "steps", "predictions"):
            target = folder / table / relative_path(**entry)
            target.parent.mkdir(parents=True)
            (folder / table / old).rename(target)
        unknown = (pl.lit("ODD25").alias("strategy"), pl.lit("ODD").alias("kind"))
        path = folder / "trials" / relative_path(**entry)
        pl.read_parquet(path, hive_partitioning=False).with_columns(*unknown).write_parquet(path)
    (folder / "sweep.json").write_text(json.dumps(manifest), "utf-8")
    assert "12 done" in reproduce("status", folder)
    assert "FAILED" not in reproduce("verify", folder)
    reproduce("publish", folder, tmp_path / "out")
    assert "12 of 12 trials succeeded" in reproduce("report", folder, "--out", tmp_path / "report")
    assert "ODD25" in (tmp_path / "report" / "report.html").read_text("utf-8")
