"""One folder holds the points of a declared grid, and still never mixes recipes otherwise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from reproduce.plan.inputs import find_inputs, trial_specs
from reproduce.plan.search_space import load_space, recipe_values
from reproduce.run.worker import TrialWorker
from reproduce.store.artifacts import ArtifactError, prepare_folder, read_folder
from reproduce.store.contents import checked_contents
from reproduce.store.merge import joined_state, merge
from reproduce.store.parquet import TrialResult, read_trials, row_status, scan_table, write_trial
from reproduce.store.publish import publish
from reproduce.store.trial_row import TrialRow
from reproduce.verify import verify
from tests.reproduce.report.synthetic import trial_row

RATES = ("0.0003", "0.001")


def prepare(root: Path, *rates: str, **overrides: str) -> list[str]:
    """List the trials of a grid over some learning rates, of a single one without a grid; the trials' names."""
    narrow = {"tasks": ["tiny-cb"], "strategies": ["ALL"], "seeds": ["1"]}
    grid = {"learning_rate": list(rates)} if len(rates) > 1 else {}
    single = {"learning_rate": rates[0]} if len(rates) == 1 else {}
    space = load_space("embedded", narrow, single | overrides, grid=grid)
    specs = trial_specs(space, find_inputs(space))
    prepare_folder(root, specs, recipe_values(space.recipe))
    return [str(trial.factors) for trial in read_folder(root).listed]


def test_the_points_of_a_grid_share_a_folder(tmp_path: Path) -> None:
    names = [f"tiny-gemma/tiny-cb/ALL/seed1/learning_rate={rate}" for rate in RATES]
    assert prepare(tmp_path, *RATES) == names
    assert prepare(tmp_path, RATES[1]) == names, "a part of the grid"
    assert prepare(tmp_path, *RATES, "0.01") == [*names, "tiny-gemma/tiny-cb/ALL/seed1/learning_rate=0.01"]
    manifest = json.loads((tmp_path / "sweep.json").read_text("utf-8"))
    assert manifest["grid"] == {"learning_rate": [0.0003, 0.001, 0.01]}
    assert "learning_rate" not in manifest["recipe"]


def test_a_folder_of_one_recipe_becomes_one_point(tmp_path: Path) -> None:
    assert prepare(tmp_path, RATES[1]) == ["tiny-gemma/tiny-cb/ALL/seed1"]
    before = json.loads((tmp_path / "sweep.json").read_text("utf-8"))
    assert "grid" not in before
    assert {*before["trials"][0]} == {"model", "task", "strategy", "seed", "run_id"}, "as earlier versions"
    assert prepare(tmp_path, *RATES) == [
        "tiny-gemma/tiny-cb/ALL/seed1/learning_rate=0.001",
        "tiny-gemma/tiny-cb/ALL/seed1/learning_rate=0.0003",
    ]


@pytest.mark.parametrize(
    ("first", "then", "overrides", "message"),
    [
        (
            RATES,
            ("0.1",),
            {},
            "the grid of {root} has learning_rate = 0.0003, 0.001, not 0.1: name another folder",
        ),
        (("0.1",), RATES, {}, "another recipe: learning_rate = 0.1 there, 0.0003, 0.001 now"),
        (("0.1",), ("0.2",), {}, "another recipe: learning_rate = 0.1 there, 0.2 now"),
        (RATES, RATES, {"steps": "7"}, "another recipe: steps = 100 there, 7 now"),
    ],
)
def test_other_values_are_refused(
    first: tuple[str, ...], then: tuple[str, ...], overrides: dict[str, str], message: str, tmp_path: Path
) -> None:
    prepare(tmp_path, *first)
    with pytest.raises(ArtifactError) as raised:
        prepare(tmp_path, *then, **overrides)
    assert message.format(root=tmp_path) in str(raised.value)


def result(status: str = "ok", **values: Any) -> TrialResult:
    row = trial_row("BOT50", status=status, recipe_evaluate_every=2, **values)
    evaluations = {"step": [2, 3], "accuracy": [0.5, 0.6], "loss": [1.0, 0.9], "seconds": [0.1, 0.2]}
    return TrialResult(TrialRow.from_columns(row), evaluations=evaluations if status == "ok" else {})


def test_evaluations_are_part_of_a_finished_trial(tmp_path: Path) -> None:
    write_trial(tmp_path, result())
    table = read_trials([tmp_path])
    (file,) = table.evaluations
    assert scan_table([table], "evaluations").collect().rows() == [  # type: ignore[union-attr]
        (table.frame["run_id"][0], 2, 0.5, 1.0, 0.1),
        (table.frame["run_id"][0], 3, 0.6, 0.9, 0.2),
    ]
    relative = file.relative_to(tmp_path / "evaluations")
    assert row_status(tmp_path, relative) == "ok"
    whole = file.read_bytes()
    for content, reason in (
        (whole[:20], "the file is cut short or is not Parquet"),
        (None, "the file is missing"),
    ):
        file.write_bytes(content) if content else file.unlink()
        table = read_trials([tmp_path])
        assert (table.frame.height, [(d.path, d.reason) for d in table.damaged]) == (0, [(file, reason)])
        assert row_status(tmp_path, relative) is None


def test_trials_without_evaluations_have_three_files(tmp_path: Path) -> None:
    write_trial(tmp_path, TrialResult(TrialRow.from_columns(trial_row("BOT50"))))
    assert not (tmp_path / "evaluations").exists()
    assert read_trials([tmp_path]).frame.height == 1
    # A failed trial that would have had evaluations has an empty file of them.
    write_trial(tmp_path, result("error", seed=7, run_id="failed"))
    table = read_trials([tmp_path])
    assert (table.frame.height, table.damaged, len(table.evaluations)) == (2, (), 1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two seeds at two rates, evaluated during training."""
    root = tmp_path_factory.mktemp("grid") / "a"
    root.mkdir()
    narrow = {"tasks": ["tiny-cb"], "strategies": ["BOT50"], "seeds": ["1", "2"]}
    short = {"steps": "3", "batch_size": "4", "evaluate_every": "2", "max_validation_examples": "20"}
    space = load_space("embedded", narrow, short, grid={"learning_rate": ["0.001", "0.01"]})
    inputs = find_inputs(space)
    specs = trial_specs(space, inputs)
    prepare_folder(root, specs, recipe_values(space.recipe))
    worker = TrialWorker()
    for spec in specs:
        data = inputs.data["tiny-cb"][spec.factors.data_key]
        write_trial(root, worker.run(spec, lambda: inputs.checkpoints["tiny-gemma"], data))
    return root


def test_grids_and_evaluations_are_published_and_verified(trained: Path, tmp_path: Path) -> None:
    published = publish([trained], read_folder(trained), tmp_path / "b", tables=("evaluations",))
    assert {path.name for path in published} >= {"trials.parquet", "evaluations.parquet"}
    state = read_folder(tmp_path / "b")
    assert {trial.factors.grid for trial in state.listed} == {(("learning_rate", r),) for r in (1e-3, 1e-2)}
    checks = {check.name: check for check in verify(state, read_folder(trained))}
    assert checks["complete"].sentence.startswith("4 of the 4 trials")
    assert checks["seeds"].sentence.startswith("2 for each strategy, model and task, none twice")
    assert checks["recipe"].passed
    assert checks["recipe"].sentence.endswith("one recipe, and 2 points of a grid over learning_rate")
    assert "evaluations during training of 4" in checks["exact"].sentence


def test_evaluations_that_were_edited_are_not_believed(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "folder"))
    first, second = sorted((folder / "evaluations").rglob("*.parquet"))[:2]
    for path, column in ((first, pl.col("loss") + 1e-6), (second, pl.col("accuracy") / 2)):
        pl.read_parquet(path, hive_partitioning=False).with_columns(column).write_parquet(path)
    reasons = {entry.path: entry.reason for entry in checked_contents(read_folder(folder).table).damaged}
    assert {*reasons} == {first, second}
    assert all("its evaluations have been changed" in reason for reason in reasons.values())
    # Rows of a program that wrote no checksums are still compared with their own accuracy.
    unsealed = pl.lit(None, pl.String)
    for path in (folder / "trials").rglob("*.parquet"):
        rows = pl.read_parquet(path, hive_partitioning=False)
        rows.with_columns(row_checksum=unsealed, evaluations_checksum=unsealed).write_parquet(path)
    reasons = {entry.path: entry.reason for entry in checked_contents(read_folder(folder).table).damaged}
    assert {*reasons} == {second}
    assert "its last evaluation has an accuracy of" in reasons[second]


def test_two_seeds_and_a_rate_of_each_folder_merge(trained: Path, tmp_path: Path) -> None:
    parts = []
    for seed in (1, 2):
        part = Path(shutil.copytree(trained, tmp_path / str(seed)))
        manifest = json.loads((part / "sweep.json").read_text("utf-8"))
        # The other folder's grid lists its own rate last.
        manifest["grid"]["learning_rate"] = manifest["grid"]["learning_rate"][:: 1 if seed == 1 else -1]
        manifest["trials"] = [entry for entry in manifest["trials"] if entry["seed"] == seed]
        (part / "sweep.json").write_text(json.dumps(manifest), "utf-8")
        for path in part.rglob(f"seed={3 - seed}-*.parquet"):
            path.unlink()
        parts.append(part)
    (tmp_path / "c").mkdir()
    assert merge(parts, tmp_path / "c") == 4
    merged, whole = read_folder(tmp_path / "c"), read_folder(trained)
    assert {*merged.listed} == {*whole.listed}
    assert [check for check in verify(merged, whole) if check.passed is False] == []
    joined = joined_state(parts)
    assert len(joined.table.evaluations) == 4
    assert [check for check in verify(joined, whole) if check.passed is False] == []
