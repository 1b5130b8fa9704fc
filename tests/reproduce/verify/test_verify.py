"""What ``verify`` accepts and what it finds, on folders with one thing wrong each; what ``publish`` writes."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from reproduce.cli.app import main
from reproduce.store.artifacts import ArtifactError, FolderState, read_folder
from reproduce.store.parquet import TrialResult, read_trials, write_trial
from reproduce.store.publish import publish
from reproduce.store.schema import PREDICTION_SCHEMA, STEP_SCHEMA, TRIAL_SCHEMA
from reproduce.store.trial_row import TrialRow
from reproduce.verify import Check, verify
from reproduce.verify.differences import CELL
from tests.reproduce.report.synthetic import grid, trial_row

Rows = list[dict[str, Any]]
_STRATEGIES = ("ALL", "BOT25", "ADT-L50")


def rows(**changes: Any) -> Rows:
    return grid(strategies=_STRATEGIES, **changes)


def steps_of(n: int) -> dict[str, int]:
    return {"recipe_steps": n, "recipe_probe_steps": 1}


def folder(root: Path, trials: Rows, losses: dict[str, list[float]] | None = None) -> Path:
    """A published folder; ``losses`` by run id."""
    root.mkdir()
    pl.DataFrame(trials, schema=TRIAL_SCHEMA).write_parquet(root / "trials.parquet")
    if losses is not None:
        steps = [
            {"run_id": run_id, "step": step, "loss": loss, "grad_norm": 1.0}
            for run_id, values in losses.items()
            for step, loss in enumerate(values, start=1)
        ]
        pl.DataFrame(steps, schema=STEP_SCHEMA).write_parquet(root / "steps.parquet")
    return root


def check(here: Path, there: Path | FolderState | None = None, **options: Any) -> dict[str, Check]:
    reference = read_folder(there) if isinstance(there, Path) else there
    return {each.name: each for each in verify(read_folder(here), reference, **options)}


def failed(checks: dict[str, Check]) -> list[str]:
    return [name for name, each in checks.items() if each.passed is False]


def altered(trials: Rows, strategy: str, **changes: Any) -> Rows:
    """The rows, with changes in the first of a strategy."""
    place = next(i for i, row in enumerate(trials) if row["strategy"] == strategy)
    return [{**row, **(changes if i == place else {})} for i, row in enumerate(trials)]


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return folder(tmp_path / "reference", rows())


@pytest.fixture
def folder_of_a_sweep(tmp_path: Path) -> Path:
    root, trials = tmp_path / "sweep", rows(**steps_of(2), n_validation=2)
    for place, row in enumerate(trials):
        steps = {"step": [1, 2], "loss": [0.7, place / 20], "grad_norm": [1.0, 0.5]}
        predictions = {
            "example_id": ["0", "1"],
            "prediction": [0, 1],
            "logits": [[2.5, place / 9], [0.1, 0.2]],
        }
        write_trial(root, TrialResult(TrialRow.from_columns(row), steps, predictions))
    folder_manifest(root, trials)
    return root


def folder_manifest(root: Path, trials: Rows) -> None:
    """List trials as a sweep's folder does."""
    cells = [{name: row[name] for name in (*CELL, "run_id")} for row in trials]
    content = {"space": "synthetic", "recipe": {}, "inputs": {}, "trials": cells}
    (root / "sweep.json").write_text(json.dumps(content), "utf-8")


def test_a_folder_agrees_with_itself(reference: Path) -> None:
    checks = check(reference, reference)
    assert failed(checks) == []
    assert "18 of the 18 trials" in checks["complete"].sentence
    assert "18 are equal bit by bit" in checks["exact"].sentence
    assert "accuracy" not in checks
    assert "1.00 times" in checks["speed"].sentence


def test_what_the_reference_has_must_be_there(reference: Path, tmp_path: Path) -> None:
    here = folder(tmp_path / "here", rows()[1:])
    checks = check(here, reference)
    assert failed(checks) == ["complete"]
    assert checks["complete"].details == ("no result: tiny-gemma/tiny-rte/ALL/42",)
    assert failed(check(here, reference, partial=True)) == []
    more = check(reference, here)
    assert failed(more) == []
    assert more["beyond"].sentence.startswith("1 trials are not in the reference")


def test_failed_trials_are_named_with_their_reason(tmp_path: Path) -> None:
    here = folder(tmp_path / "here", [*rows(), trial_row("LoRA", status="oom")])
    (detail,) = check(here)["complete"].details
    assert detail == "no result: tiny-gemma/tiny-rte/LoRA/42 (oom: it broke)"


def test_skipped_trials_are_expected_only_if_the_reference_has_them(tmp_path: Path) -> None:
    here = folder(tmp_path / "here", [*rows(), trial_row("LoRA", status="skipped")])
    checks = check(here)
    assert checks["complete"].passed
    assert "18 of the 18 trials" in checks["complete"].sentence
    assert checks["complete"].sentence.endswith("; skipped, since they do not fit the GPUs: 1")
    reference = folder(tmp_path / "reference", [*rows(), trial_row("LoRA")])
    (detail,) = check(here, reference)["complete"].details
    assert detail == "no result: tiny-gemma/tiny-rte/LoRA/42 (skipped: it broke)"
    assert failed(check(here, reference, partial=True)) == []
    only = folder(tmp_path / "only", [trial_row("LoRA", status="skipped")])
    assert failed(check(only)) == ["complete"]


def test_nothing_in_common_is_no_agreement(reference: Path, tmp_path: Path) -> None:
    here = folder(tmp_path / "here", rows(models=("tiny-phi",)))
    assert failed(check(here, reference, partial=True)) == ["reference"]


def test_a_seed_that_changes_nothing_is_found(tmp_path: Path) -> None:
    trials = rows(**steps_of(2))
    own = {row["run_id"]: [1 / (place + 2), 0.5] for place, row in enumerate(trials)}
    assert failed(check(folder(tmp_path / "own", trials, own))) == []
    own[trials[1]["run_id"]] = own[trials[0]["run_id"]]
    checks = check(folder(tmp_path / "alike", trials, own))
    assert failed(checks) == ["seeds"]
    assert checks["seeds"].details == ("tiny-gemma/tiny-rte/ALL/42", "tiny-gemma/tiny-rte/ALL/43")


def test_a_seed_run_twice_and_two_recipes_are_found(tmp_path: Path) -> None:
    again = trial_row("ALL", recipe_learning_rate=0.25)
    checks = check(folder(tmp_path / "here", [*rows(), again]))
    assert failed(checks) == ["seeds", "recipe"]
    assert checks["seeds"].details == ("tiny-gemma/tiny-rte/ALL/42",)
    assert checks["recipe"].details == ("learning_rate: 0.001 or 0.25",)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"git_commit": "f" * 40}, "git_commit: 0123456789ab or ffffffffffff"),
        ({"package_versions_json": json.dumps({"torch": "2.11.0"})}, "torch: 2.10.0 or 2.11.0"),
        ({"image_digest": "sha256:1234"}, "image_digest: sha256:1234 or unknown"),
    ],
)
def test_several_images_are_found(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    checks = check(folder(tmp_path / "here", altered(rows(), "BOT25", **changes)))
    assert failed(checks) == ["image"]
    assert checks["image"].details == (sentence,)


def test_code_that_no_commit_holds_is_found(tmp_path: Path) -> None:
    checks = check(folder(tmp_path / "here", rows(git_dirty=True)))
    assert failed(checks) == ["image"]


def test_other_inputs_are_found(reference: Path, tmp_path: Path) -> None:
    checks = check(folder(tmp_path / "here", rows(weights_hash="e" * 64)), reference)
    assert failed(checks) == ["inputs"]
    assert checks["inputs"].details[0].startswith("weights_hash is eeeeeeeeeeee here, ")


def test_any_bit_counts_on_equal_hardware_and_versions(reference: Path, tmp_path: Path) -> None:
    accuracy = rows()[0]["validation_accuracy"]
    here = folder(tmp_path / "here", altered(rows(), "ALL", validation_accuracy=accuracy + 1e-9))
    checks = check(here, reference)
    assert failed(checks) == ["exact"]
    trial, why = checks["exact"].details
    assert trial.startswith(f"tiny-gemma/tiny-rte/ALL/42: accuracy {accuracy:.4f}")
    assert why.startswith("likely reason: nothing recorded explains it")
    commit = {"validation_accuracy": accuracy + 1e-9, "git_commit": "f" * 40}
    other = check(folder(tmp_path / "commit", altered(rows(), "ALL", **commit)), reference)
    assert (
        "likely reason: the code (git_commit is ffffffffffff here, 0123456789ab in the"
        in other["exact"].details[-1]
    )


GPU = {
    "device": "cuda",
    "gpu_name": "A GPU",
    "driver_version": "570.1",
    "cuda_version": "13.0",
    "cudnn_version": "91000",
}


@pytest.mark.parametrize(
    ("here", "there", "bits", "reason"),
    [
        ({}, {}, True, "on equal hardware and versions with deterministic algorithms only"),
        ({"deterministic_algorithms": False}, {}, False, "with algorithms that may not be deterministic"),
        ({}, {"deterministic_algorithms": False}, False, "with algorithms that may not be deterministic"),
        # Earlier versions wrote true where torch only warned.
        ({}, {"schema_version": 3}, False, "with algorithms that may not be deterministic"),
        (
            {"schema_version": 2},
            {"schema_version": 2},
            False,
            "with algorithms that may not be deterministic",
        ),
        ({"driver_version": "575.1"}, {}, False, "on other hardware, versions or settings"),
        ({"cudnn_version": "91100"}, {}, False, "on other hardware, versions or settings"),
        ({"gpu_name": "Another GPU"}, {}, False, "on other hardware, versions or settings"),
        (
            {"driver_version": None},
            {"driver_version": None},
            False,
            "with algorithms that may not be deterministic",
        ),
    ],
)
def test_bits_are_demanded_of_one_gpu_and_deterministic_algorithms_only(
    here: dict[str, Any], there: dict[str, Any], bits: bool, reason: str, tmp_path: Path
) -> None:
    accuracy = rows()[0]["validation_accuracy"]
    trials = altered(rows(**GPU | here), "ALL", validation_accuracy=accuracy + 1e-4)
    checks = check(
        folder(tmp_path / "here", trials), folder(tmp_path / "there", rows(**GPU | there)), partial=True
    )
    assert ("exact" in checks) == bits
    assert ("accuracy" in checks) != bits
    assert failed(checks) == (["exact"] if bits else [])
    assert reason in checks["exact" if bits else "accuracy"].sentence


def test_earlier_rows_of_the_cpu_are_compared_bit_by_bit(reference: Path, tmp_path: Path) -> None:
    """Warnings or not, torch used the same algorithms there."""
    checks = check(folder(tmp_path / "here", rows(schema_version=2)), reference)
    assert "18 are equal bit by bit" in checks["exact"].sentence


def test_losses_are_compared_step_by_step(tmp_path: Path) -> None:
    trials = rows(**steps_of(3))
    losses = {row["run_id"]: [0.7, 0.6, 0.5 - place / 100] for place, row in enumerate(trials)}
    there = folder(tmp_path / "there", trials, losses)
    assert failed(check(there, there)) == []
    losses[trials[3]["run_id"]] = [0.7, 0.6, losses[trials[3]["run_id"]][2] + 0.125]
    checks = check(folder(tmp_path / "here", trials, losses), there)
    assert failed(checks) == ["exact"]
    assert (
        checks["exact"].details[0] == "tiny-gemma/tiny-rte/BOT25/42: losses from step 3 on, by at most 0.125"
    )
    assert "(compared: accuracies, frozen layers, losses of 18)" in checks["exact"].sentence


def test_other_hardware_is_allowed_what_chance_allows(reference: Path, tmp_path: Path) -> None:
    """n = 277 at 80 %: the difference of two accuracies has the standard error sqrt(2 · 0.8 · 0.2 / 277), and
    1 % over 18 two-sided comparisons is 3.45 of them (a table of the normal distribution)."""
    allowed = 3.4528 * math.sqrt(2 * 0.8 * 0.2 / 277)
    for name, factor, bad in (("near", 0.98, []), ("far", 1.02, ["accuracy"])):
        pair = [0.8 + factor * allowed / 2, 0.8 - factor * allowed / 2]
        there = folder(tmp_path / f"there-{name}", altered(rows(), "ALL", validation_accuracy=pair[1]))
        here = rows(cpu_model="Another", git_commit="f" * 40)
        checks = check(folder(tmp_path / name, altered(here, "ALL", validation_accuracy=pair[0])), there)
        assert failed(checks) == bad
        assert "exact" not in checks
    assert "allowed ± 11.7" in checks["accuracy"].details[0]
    assert "likely reason: the code" in checks["accuracy"].details[-1]
    assert "also other: hardware" in checks["accuracy"].details[-1]


def binomial(source: random.Random, accuracy: float, n: int) -> float:
    return sum(source.random() < accuracy for _ in range(n)) / n


def test_a_planted_shift_is_found_and_chance_is_not(tmp_path: Path) -> None:
    """Of 100 reruns that differ by chance alone, one is expected outside either bound; five are unlikely."""
    source = random.Random(7)
    base = rows(seeds=tuple(range(10)), cpu_model="Another")
    alarms = {"accuracy": 0, "means": 0}
    there = folder(
        tmp_path / "there",
        [{**r, "validation_accuracy": binomial(source, 0.8, 277)} for r in rows(seeds=range(10))],
    )
    reference = read_folder(there)
    for repetition in range(100):
        noisy = [{**row, "validation_accuracy": binomial(source, 0.8, 277)} for row in base]
        checks = check(folder(tmp_path / str(repetition), noisy), reference)
        for name in alarms:
            alarms[name] += checks[name].passed is False
    # The reference is one draw, shared by all: what is odd in it stays odd.
    assert max(alarms.values()) <= 5
    shifted = [
        {**row, "validation_accuracy": row["validation_accuracy"] - 0.06 * (row["strategy"] == "BOT25")}
        for row in noisy
    ]
    checks = check(folder(tmp_path / "shifted", shifted), reference)
    assert failed(checks) == ["means"]
    assert checks["means"].details[0].startswith("BOT25: -")


def test_layers_and_memory_are_compared(reference: Path, tmp_path: Path) -> None:
    grown = [
        {**row, "frozen_layers": [7], "static_bytes": round(row["static_bytes"] * 1.02)} for row in rows()
    ]
    here = [{**row, "cpu_model": "Another"} for row in grown]
    checks = check(folder(tmp_path / "here", here), reference)
    assert failed(checks) == ["layers", "memory"]
    assert "12 trials of strategies with fixed layers" in checks["layers"].sentence
    assert "of 6 adaptive trials, 0 selected the same layers" in checks["layers"].sentence
    assert "static +2.0 %" in checks["memory"].details[0]
    otherwise = check(folder(tmp_path / "other", rows(memory_method="another way")), reference)
    assert otherwise["memory"].passed is None


def run(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return done.exit_code, done.output


def test_the_command_says_what_it_found(reference: Path, tmp_path: Path) -> None:
    here = folder(tmp_path / "here", rows()[1:])
    assert run("verify", reference, "--against", reference)[0] == 0
    status, text = run("verify", here, "--against", reference)
    assert status == 1
    assert "FAILED  complete: 17 of the 18 trials" in text
    status, text = run("verify", here, "--against", reference, "--json", "--partial")
    printed = json.loads(text)
    assert (status, printed["passed"], printed["checks"][0]["name"]) == (0, True, "complete")
    status, text = run("verify", here, "--against", tmp_path)
    assert (status, text.count("\n")) == (2, 1)
    assert f"{tmp_path} is not an artifact folder" in text


def test_published_folders_are_what_they_were_made_of(folder_of_a_sweep: Path, tmp_path: Path) -> None:
    before = read_trials([folder_of_a_sweep])
    status, text = run("publish", folder_of_a_sweep, tmp_path / "out", "--with-steps", "--with-predictions")
    assert status == 0, text
    after = read_trials([tmp_path / "out"])
    assert after.frame.drop("artifacts").equals(
        before.frame.drop("artifacts").sort("model", "task", "strategy", "seed")
    )
    assert pl.read_parquet(tmp_path / "out" / "steps.parquet").schema == STEP_SCHEMA
    assert pl.read_parquet(tmp_path / "out" / "predictions.parquet").schema == PREDICTION_SCHEMA
    checks = check(tmp_path / "out", folder_of_a_sweep)
    assert failed(checks) == []
    assert f"losses of {before.frame.height}" in checks["exact"].sentence
    run("publish", folder_of_a_sweep, tmp_path / "again", "--with-steps", "--with-predictions")
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


@pytest.mark.parametrize("why", ["incomplete", "taken", "no steps", "read-only"])
def test_publish_refuses(why: str, tmp_path: Path) -> None:
    trials = rows() if why != "incomplete" else [*rows(), trial_row("LoRA", status="error")]
    here, out = folder(tmp_path / "here", trials), tmp_path / "out"
    tables = ("steps",) if why == "no steps" else ()
    if why == "taken":
        out.mkdir()
        (out / "mine.txt").touch()
    if why == "read-only":
        out.write_text("a file")
    sentence = {
        "incomplete": "is not complete: 1 of 19 trials have no result; .* --incomplete",
        "taken": "exists and is not an empty folder",
        "no steps": "holds no steps",
        "read-only": "exists and is not an empty folder",
    }
    with pytest.raises(ArtifactError, match=sentence[why]):
        publish([here], read_folder(here), out, tables=tables)
    assert not (out / "trials.parquet").exists()
    if why == "incomplete":
        publish([here], read_folder(here), out, incomplete=True)
        assert read_trials([out]).frame.height == 19


def test_a_sweeps_folder_counts_its_trials_once(folder_of_a_sweep: Path) -> None:
    before = read_trials([folder_of_a_sweep]).frame
    before.drop("artifacts").write_parquet(folder_of_a_sweep / "trials.parquet")
    assert read_trials([folder_of_a_sweep]).frame.equals(before)
