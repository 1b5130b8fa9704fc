"""``reproduce verify`` without a reference: the published results of the folder's space, if there are any."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from reproduce.cli.app import main
from reproduce.store.references import reference_path

SPACES = {"embedded": 102, "embedded-full": 1275}
NOT_PUBLISHED = (
    "the published results of embedded have none of these trials with this recipe: nothing is compared"
)


def verify(folder: Path) -> tuple[int, dict[str, dict[str, object]]]:
    """The exit status and the checks by name."""
    result = CliRunner().invoke(main, ["verify", str(folder), "--json"])
    return result.exit_code, {check["name"]: check for check in json.loads(result.output)["checks"]}


def published(space: str) -> pl.DataFrame:
    folder = reference_path(space)
    assert folder is not None
    return pl.read_parquet(folder / "trials.parquet")


def elsewhere(trials: pl.DataFrame) -> pl.DataFrame:
    """The trials as another machine gives them: another processor, one validation example more or less right."""
    example = pl.when(pl.col("seed") % 2 == 0).then(1).otherwise(-1) / pl.col("n_validation")
    return trials.with_columns(
        cpu_model=pl.lit("Another Processor"), validation_accuracy=pl.col("validation_accuracy") + example
    )


def folder(root: Path, trials: pl.DataFrame) -> Path:
    root.mkdir()
    trials.write_parquet(root / "trials.parquet")
    return root


@pytest.mark.parametrize("space", SPACES)
def test_a_run_elsewhere_is_compared_with_the_published_results(space: str, tmp_path: Path) -> None:
    trials = published(space)
    assert (trials.height, set(trials["space"])) == (SPACES[space], {space})
    status, checks = verify(folder(tmp_path / "here", elsewhere(trials)))
    assert status == 0
    assert str(checks["accuracy"]["sentence"]).startswith(f"of {SPACES[space]:,} trials on other hardware")
    assert checks["against"]["sentence"] == f"compared with the published results of {space}"


def test_other_results_are_found(tmp_path: Path) -> None:
    trials = elsewhere(published("embedded")).with_columns(pl.col("validation_accuracy") * 0.8)
    status, checks = verify(folder(tmp_path / "here", trials))
    assert status == 1
    assert checks["accuracy"]["passed"] is False


def test_a_part_of_the_space_is_compared_as_it_is(tmp_path: Path) -> None:
    status, checks = verify(folder(tmp_path / "here", elsewhere(published("embedded")).head(6)))
    assert status == 0
    assert str(checks["complete"]["sentence"]).startswith("6 of the 6 trials that the folder lists")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"space": "mine"}, "no results of mine are published: nothing is compared; --against names a reference"),
        ({"recipe_steps": 12}, NOT_PUBLISHED),
        ({"model": "tiny-phi"}, NOT_PUBLISHED),
    ],
)  # fmt: skip
def test_without_published_results_the_folder_is_checked_by_itself(
    change: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    changed = published("embedded").with_columns(**{name: pl.lit(value) for name, value in change.items()})
    types = {name: published("embedded").schema[name] for name in change}
    status, checks = verify(folder(tmp_path / "here", changed.cast(types)))
    # What changes a trial's numbers changes its run id, too, but not in these edited rows.
    failed = {name for name, check in checks.items() if check["passed"] is False}
    assert failed == (set() if "space" in change else {"run ids"})
    assert status == bool(failed)
    assert checks["against"] == {"name": "against", "passed": None, "sentence": sentence, "details": []}
    assert not {"accuracy", "exact", "inputs"} & set(checks)


@pytest.mark.sweep
def test_a_real_run_gives_the_published_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = [
        "trial",
        "--strategy",
        "BOT75",
        "--model",
        "tiny-gemma",
        "--task",
        "tiny-cb",
        "--seed",
        "42",
        "--json",
    ]
    result = CliRunner().invoke(main, one)
    assert result.exit_code == 0, result.output
    row = json.loads(result.output[result.output.index("{") :])
    (known,) = published("embedded").filter(task="tiny-cb", strategy="BOT75", seed=42).to_dicts()
    assert row["run_id"] == known["run_id"]
    assert row["frozen_layers"] == known["frozen_layers"]
    # 500 validation examples: four standard errors of the difference between two machines.
    assert row["validation_accuracy"] == pytest.approx(known["validation_accuracy"], abs=0.13)
    assert row["training_bytes"] == pytest.approx(known["training_bytes"], rel=0.05)
