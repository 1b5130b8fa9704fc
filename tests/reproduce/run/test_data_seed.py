"""``data_seed = "trial"``: each trial's own seed draws its training examples."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from lfreeze.data.loading import load_task
from reproduce.plan.inputs import find_inputs, trial_specs
from reproduce.plan.search_space import load_space
from reproduce.plan.spec import TrialSpec
from reproduce.report.analysis.effects import sensitivity_data
from reproduce.report.text.findings import varying_recipe
from reproduce.report.text.provenance import open_questions
from reproduce.store.artifacts import ArtifactError, prepare_folder
from reproduce.store.parquet import read_trials
from reproduce.store.row_values import started_row
from reproduce.store.schema import TRIAL_SCHEMA
from reproduce.store.trial_row import TrialRow
from reproduce.verify.differences import differences
from tests.reproduce.report.synthetic import grid
from tests.reproduce.run.test_sweep import FEW_EXAMPLES, INLINE, SMALL
from tests.support.program import Program

TRIAL = ("--set", "data_seed=trial")
REASON = "drawn by the trial's seed"


def specs(data_seed: str, accept: str = "100") -> list[TrialSpec]:
    narrow = {"tasks": ["tiny-cb"], "strategies": ["ALL", "BOT50"], "seeds": ["1", "2"]}
    space = load_space("embedded", narrow, {"max_train_examples": accept, "data_seed": data_seed})
    return trial_specs(space, find_inputs(space))


def test_strategies_share_what_their_seed_draws() -> None:
    drawn = {(s.factors.strategy, s.factors.seed): s.inputs.dataset_fingerprint for s in specs("trial")}
    for (_, seed), fingerprint in drawn.items():
        # The same as this number as the one seed of all trials: the seed alone decides.
        assert fingerprint == load_task("tiny-cb", 100, seed).fingerprint
    assert len(set(drawn.values())) == 2
    fixed = specs("1")
    assert {s.inputs.dataset_fingerprint for s in fixed} == {drawn["ALL", 1]}
    assert not {s.run_id for s in fixed} & {s.run_id for s in specs("trial")}
    # Of a task that is used whole, every seed has the same.
    assert len({s.inputs.dataset_fingerprint for s in specs("trial", "1000")}) == 1


def test_a_row_has_no_number_and_the_reason() -> None:
    row = started_row(specs("trial")[0], 1)
    columns = row.columns()
    assert columns["recipe_data_seed"] is None
    assert {"column": "recipe_data_seed", "reason": REASON} in columns["null_reasons"]
    assert TrialRow.from_columns(columns).recipe.data_seed == "trial"
    assert started_row(specs("5")[0], 1).columns()["recipe_data_seed"] == 5
    # The type that every earlier folder has.
    assert TRIAL_SCHEMA["recipe_data_seed"] == pl.Int64()


def test_a_folder_holds_one_of_the_two(tmp_path: Path) -> None:
    for name, change in (("trial", "0"), ("0", "trial")):
        root = tmp_path / name
        root.mkdir()
        prepare_folder(root, specs(name), {"data_seed": name})
        prepare_folder(root, specs(name), {"data_seed": name})
        with pytest.raises(ArtifactError, match=f"data_seed = '{name}' there, '{change}' now"):
            prepare_folder(root, specs(change), {"data_seed": change})
    keys = {
        name: list(json.loads((tmp_path / name / "sweep.json").read_text())["inputs"])
        for name in ("trial", "0")
    }
    assert keys == {"trial": ["tiny-gemma/tiny-cb/1", "tiny-gemma/tiny-cb/2"], "0": ["tiny-gemma/tiny-cb"]}


def test_changed_data_are_accepted_by_seed(tmp_path: Path) -> None:
    """Only the trials of the seed whose examples changed are set aside."""
    recipe = {"data_seed": "trial"}
    before = specs("trial")
    prepare_folder(tmp_path, before, recipe)
    manifest = json.loads((tmp_path / "sweep.json").read_text())
    manifest["inputs"]["tiny-gemma/tiny-cb/2"]["dataset_fingerprint"] = "0" * 64
    (tmp_path / "sweep.json").write_text(json.dumps(manifest))
    with pytest.raises(
        ArtifactError, match="holds trials of tiny-gemma/tiny-cb/2 with another dataset_fingerprint"
    ):
        prepare_folder(tmp_path, before, recipe)
    prepare_folder(tmp_path, [s for s in before if s.factors.seed == 2], recipe, accept_inputs=True)
    listed = json.loads((tmp_path / "sweep.json").read_text())["trials"]
    assert sorted(entry["seed"] for entry in listed) == [1, 1, 2, 2]


def test_reports_tell_the_two_apart() -> None:
    trials = grid(strategies=["ALL"], recipe_data_seed=0)
    drawn = grid(strategies=["ALL"], recipe_data_seed=None)
    for row in drawn:
        row["run_id"] += "-drawn"
    frame = pl.DataFrame([*trials, *drawn], schema=TRIAL_SCHEMA)
    assert varying_recipe(frame) == ["data_seed"]
    assert varying_recipe(frame[: len(trials)]) == []
    (shown,) = (values for name, _, values in open_questions(frame) if name == "data_seed")
    assert set(shown) == {"0", REASON}
    effects = sensitivity_data(frame)
    assert effects["setting"].to_list() == [f"data_seed: 0 → {REASON}"]
    assert effects["n"].to_list() == [len(trials)]
    pairs = pl.DataFrame({"recipe_data_seed": [0], "recipe_data_seed_there": [None]})
    assert differences(pairs, ["recipe_data_seed"]) == [f"data_seed is 0 here, {REASON} in the reference"]


@pytest.mark.sweep
def test_a_sweep_is_run_continued_verified_and_reported(tmp_path: Path, reproduce: Program) -> None:
    folder = str(tmp_path / "a")
    grid_of = (
        "run",
        "--no-report",
        "--tasks",
        "tiny-cb",
        "--strategies",
        "ALL,BOT50",
        *SMALL,
        *FEW_EXAMPLES,
        *INLINE,
        "--artifacts",
    )
    reproduce(*grid_of, folder, "--seeds", "1", *TRIAL)
    reproduce(*grid_of, folder, "--seeds", "1,2", *TRIAL)
    frame = read_trials([tmp_path / "a"]).frame
    assert frame.height == 4
    assert set(frame["status"]) == {"ok"}
    assert frame["recipe_data_seed"].null_count() == 4
    assert frame.group_by("seed").agg(pl.col("dataset_fingerprint").n_unique())[
        "dataset_fingerprint"
    ].to_list() == [1, 1]
    assert frame["dataset_fingerprint"].n_unique() == 2
    refused = reproduce(*grid_of, folder, "--seeds", "1", expect=2)
    assert "data_seed = 'trial' there, 0 now" in refused
    assert "FAILED" not in reproduce("verify", folder, "--against", folder)
    page = reproduce("report", folder, "--out", str(tmp_path / "out"))
    assert "4 of 4 trials succeeded" in page
