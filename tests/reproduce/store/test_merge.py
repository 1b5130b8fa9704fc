"""Artifact folders as one: joined, verified and published together, and refused where they contradict each other."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from reproduce.store.artifacts import read_folder
from reproduce.store.folder_lock import exclusive_writer
from reproduce.store.merge import joined_state
from reproduce.store.parquet import TrialResult, read_trials, write_trial
from reproduce.store.row_values import failed_row
from reproduce.store.trial_row import TrialRow
from tests.support.old_folders import contents
from tests.support.program import Program

SMALL = ("--set", "batch_size=4", "--set", "max_train_examples=40", "--set", "max_validation_examples=40")


def sweep(program: Program, folder: Path, seeds: str, *more: str, steps: int = 8) -> Path:
    program("run", "--tasks", "tiny-cb", "--strategies", "ALL,BOT50", "--seeds", seeds, *SMALL,
            "--set", f"steps={steps}", *more, "--engine", "inline", "--no-report", "--artifacts", folder)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def made(reproduce: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of one recipe with two trials each, ``a`` and ``b``."""
    root = tmp_path_factory.mktemp("made")
    sweep(reproduce, root / "a", "42")
    sweep(reproduce, root / "b", "43")
    return root


@pytest.fixture
def a(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "a", tmp_path / "a"))


@pytest.fixture
def b(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "b", tmp_path / "b"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def results(folder: Path) -> list[TrialResult]:
    """The trials of a folder, as they were when they were written."""
    table = read_trials([folder])

    def columns(paths: tuple[Path, ...], run_id: str) -> dict[str, list[Any]]:
        (path,) = [path for path in paths if run_id in path.name]
        return pl.read_parquet(path, hive_partitioning=False).drop("run_id").to_dict(as_series=False)

    return [
        TrialResult(
            TrialRow.from_columns(values), columns(table.steps, values["run_id"]), columns(table.predictions, values["run_id"])
        )
        for values in table.frame.drop("artifacts").to_dicts()
    ]  # fmt: skip


def rewrite(
    folder: Path, number: int, *, hours: int = 0, error: str | None = None, grad_norm: float | None = None
) -> None:
    """Give a trial of the folder another outcome, consistent in itself."""
    result = results(folder)[number]
    row = replace(result.row, finished_at=result.row.finished_at + timedelta(hours=hours))
    if error is not None:
        write_trial(folder, TrialResult(failed_row(row, "error", "TrainingError", error)))
        return
    steps = {name: list(values) for name, values in result.steps.items()}
    if grad_norm is not None:
        steps["grad_norm"][2] = grad_norm
    write_trial(folder, TrialResult(row, steps, result.predictions))


def refusal(program: Program, *arguments: str | Path) -> str:
    message = program("merge", *arguments, expect=2)
    assert message.startswith("error: ")
    sentence = " ".join(message.split())
    assert sentence.count("error: ") == 1
    return sentence


def test_the_trials_of_all_folders_are_in_one(reproduce: Program, a: Path, b: Path, tmp_path: Path) -> None:
    before = files(a) | {f"b/{name}": content for name, content in files(b).items()}
    output = reproduce("merge", a, b, "--into", tmp_path / "joined")
    assert "4 trials, 4 done, 0 missing; 4 trials copied from 2 folders" in output
    assert contents(tmp_path / "joined") == contents(a) | contents(b)
    assert files(a) | {f"b/{name}": content for name, content in files(b).items()} == before
    # It is a sweep's folder as any other, complete for the space of both.
    output = reproduce("run", "--tasks", "tiny-cb", "--strategies", "ALL,BOT50", "--seeds", "42,43", *SMALL,
                       "--set", "steps=8", "--artifacts", tmp_path / "joined", "--no-report")  # fmt: skip
    assert "All 4 trials are finished already" in output


def test_repeated_and_interrupted_merges_copy_what_is_missing(
    reproduce: Program, a: Path, b: Path, tmp_path: Path
) -> None:
    into = tmp_path / "joined"
    reproduce("merge", a, "--into", into)
    assert "2 trials copied from 2 folders" in reproduce("merge", a, b, "--into", into)
    complete = contents(into)
    # As after a kill: a trial without its row, which is written last.
    sorted((into / "trials").rglob("*.parquet"))[1].unlink()
    assert "3 done, 0 running, 0 failed, 1 missing, of 4" in " ".join(reproduce("status", into).split())
    assert "1 trials copied" in reproduce("merge", a, b, "--into", into)
    assert contents(into) == complete
    assert "0 trials copied" in reproduce("merge", b, a, "--into", into)


def test_folders_of_two_recipes_are_refused(reproduce: Program, a: Path, tmp_path: Path) -> None:
    other = sweep(reproduce, tmp_path / "other", "43", steps=9)
    message = refusal(reproduce, a, other, "--into", tmp_path / "joined")
    assert (
        f"{a} and {other} cannot be joined: the recipe value steps is 8 in the first, 9 in the second"
        in message
    )
    assert not (tmp_path / "joined").exists()
    for command in (("verify", a, other), ("publish", a, other, tmp_path / "published")):
        assert "the recipe value steps is 8" in " ".join(reproduce(*command, expect=2).split())


def test_folders_with_other_weights_are_refused(reproduce: Program, a: Path, tmp_path: Path) -> None:
    other = sweep(reproduce, tmp_path / "other", "43", "--weights", "random")
    message = refusal(reproduce, a, other, "--into", tmp_path / "joined")
    assert f"{a} and {other} cannot be joined: the weights_hash of tiny-gemma/tiny-cb is" in message
    assert not (tmp_path / "joined").exists()


def test_input_locks_that_differ_are_refused(reproduce: Program, a: Path, b: Path, tmp_path: Path) -> None:
    lock = (b / "inputs.lock.toml").read_text("utf-8")
    (line,) = [line for line in lock.splitlines() if line.startswith("content_hash")]
    (b / "inputs.lock.toml").write_text(lock.replace(line, f'content_hash = "{"0" * 64}"'), "utf-8")
    message = refusal(reproduce, a, b, "--into", tmp_path / "joined")
    assert "the content_hash of the task tiny-cb in the input lock is" in message


def test_two_results_of_one_trial_that_differ_in_a_bit_are_refused(
    reproduce: Program, a: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(a, tmp_path / "other"))
    rewrite(other, 0, hours=1)
    # The same numbers at another time are one result, that of the first folder.
    assert "2 trials copied" in reproduce("merge", a, other, "--into", tmp_path / "same")
    assert contents(tmp_path / "same") == contents(a)
    norm = results(a)[0].steps["grad_norm"][2]
    rewrite(other, 0, grad_norm=norm * (1 + 2**-52))
    message = refusal(reproduce, a, other, "--into", tmp_path / "joined")
    assert (
        f"{a} and {other} have different steps of the same trial, model=tiny-gemma/task=tiny-cb/strategy="
        in message
    )
    assert not (tmp_path / "joined").exists()


def test_a_success_counts_before_a_failure_and_the_latest_failure_before_others(
    a: Path, tmp_path: Path
) -> None:
    folders = [Path(shutil.copytree(a, tmp_path / name)) for name in ("first", "second", "third")]
    for folder, hours in zip(folders, (2, 5, 3), strict=True):
        rewrite(folder, 0, error=f"failed in {folder.name}", hours=hours)
    state = joined_state(folders)
    assert [row["error_message"] for row in state.failed.to_dicts()] == ["failed in second"]
    assert state.done == 1
    assert_frame_equal(joined_state([folders[1], a]).rows.sort("run_id").drop("artifacts"),
                       read_folder(a).rows.sort("run_id").drop("artifacts"))  # fmt: skip


def test_a_damaged_trial_is_missing_until_a_folder_has_it_whole(
    reproduce: Program, a: Path, b: Path, tmp_path: Path
) -> None:
    whole = Path(shutil.copytree(a, tmp_path / "whole"))
    victim = sorted((a / "steps").rglob("*.parquet"))[0]
    victim.write_bytes(victim.read_bytes()[:-40])
    assert "4 trials, 3 done, 1 missing" in reproduce("merge", a, b, "--into", tmp_path / "joined")
    assert "1 trials copied" in reproduce("merge", whole, "--into", tmp_path / "joined")
    assert read_folder(tmp_path / "joined").done == 4


def test_what_is_no_finished_sweep_is_refused(reproduce: Program, a: Path, b: Path, tmp_path: Path) -> None:
    into = tmp_path / "joined"
    with exclusive_writer(a):
        assert f"a sweep is writing to {a}" in refusal(reproduce, a, b, "--into", into)
    assert f"there is no folder {tmp_path / 'none'}" in refusal(
        reproduce, a, tmp_path / "none", "--into", into
    )
    reproduce("publish", b, tmp_path / "published")
    message = refusal(reproduce, a, tmp_path / "published", "--into", into)
    assert "is not a folder of a sweep: it has no file sweep.json" in message
    assert f"is in {a}, which a merge does not change" in refusal(reproduce, a, b, "--into", a)
    assert f"is in {a}, which a merge does not change" in refusal(reproduce, a, b, "--into", a / "inside")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("x")
    message = refusal(reproduce, a, b, "--into", tmp_path / "notes")
    assert "is neither an artifact folder nor empty: name another folder" in message
    assert not into.exists()


def test_folders_are_published_as_their_joined_folder_would_be(
    reproduce: Program, a: Path, b: Path, tmp_path: Path
) -> None:
    everything = ("--with-steps", "--with-predictions")
    reproduce("merge", a, b, "--into", tmp_path / "joined")
    reproduce("publish", tmp_path / "joined", tmp_path / "one", *everything)
    reproduce("publish", b, a, tmp_path / "two", *everything)
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    assert set(one) == {
        "trials.parquet",
        "steps.parquet",
        "predictions.parquet",
        "inputs.lock.toml",
        "ro-crate-metadata.json",
    }
    assert one == two


def test_folders_are_verified_as_one(reproduce: Program, a: Path, b: Path, tmp_path: Path) -> None:
    reproduce("publish", a, b, tmp_path / "reference")

    def checks(*folders: Path, expect: int = 0) -> dict[str, Any]:
        printed = reproduce("verify", *folders, "--against", tmp_path / "reference", "--json", expect=expect)
        return {each["name"]: each for each in json.loads(printed)["checks"]}

    together = checks(a, b)
    assert "4 of the 4 trials" in together["complete"]["sentence"]
    assert "4 are equal bit by bit" in together["exact"]["sentence"]
    reproduce("merge", a, b, "--into", tmp_path / "joined")
    assert checks(tmp_path / "joined") == together
    assert checks(a, expect=1)["complete"]["passed"] is False
