"""Complete sweeps on Ray: resumption, inputs, and the same numbers as without Ray."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lfreeze.models.catalog import MODELS
from reproduce.store.parquet import TRIAL_SCHEMA, read_trials, scan_table
from tests.reproduce.run.test_worker import INCIDENTAL
from tests.support.program import Program

pytestmark = pytest.mark.sweep

SMALL = (
    "--set",
    "steps=8",
    "--set",
    "batch_size=4",
    "--set",
    "probe_steps=3",
    "--set",
    "max_train_examples=40",
)

# For sweeps whose trials need not run at the same time: a worker's imports cost more than its trials.
ONE_WORKER = ("--max-concurrent", "1")
# For sweeps that test nothing of Ray, whose services and workers take 14 s of processor time.
INLINE = ("--engine", "inline")
# For sweeps whose accuracies are not looked at.
FEW_EXAMPLES = ("--set", "max_validation_examples=40")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "reproduce", *arguments]


def rows(folder: Path) -> pl.DataFrame:
    return read_trials([folder]).frame.sort("task", "strategy", "seed")


def stamps(folder: Path) -> dict[str, int]:
    return {
        str(p.relative_to(folder)): p.stat().st_mtime_ns
        for p in sorted((folder / "trials").rglob("*.parquet"))
    }


@pytest.fixture(scope="module")
def swept(reproduce: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six trials, two at a time."""
    folder = tmp_path_factory.mktemp("sweep") / "artifacts"
    reproduce("run", "--tasks", "tiny-cb", "--strategies", "ALL,LoRA,ADT-L50", "--seeds", "42,43", *SMALL,
              "--artifacts", str(folder))  # fmt: skip
    return folder


def test_every_trial_has_its_three_files(swept: Path) -> None:
    table = read_trials([swept])
    assert not table.damaged
    assert table.frame.height == 6
    assert set(table.frame["status"]) == {"ok"}
    assert table.frame["run_id"].n_unique() == 6
    steps = scan_table([read_trials([swept])], "steps").collect()
    predictions = scan_table([read_trials([swept])], "predictions").collect()
    assert dict(steps.group_by("run_id").len().iter_rows()) == dict.fromkeys(table.frame["run_id"], 8)
    assert dict(predictions.group_by("run_id").len().iter_rows()) == dict.fromkeys(table.frame["run_id"], 500)
    right = predictions.group_by("run_id").agg(
        (pl.col("label") == pl.col("prediction")).mean().alias("right")
    )
    joined = table.frame.join(right, on="run_id")
    assert joined["right"].to_list() == pytest.approx(joined["validation_accuracy"].to_list(), abs=1e-12)
    assert not list(swept.rglob("*.tmp"))


def test_a_trial_without_ray_gives_the_same_numbers(reproduce: Program, swept: Path) -> None:
    """One by one in one process, compared with two at a time in reused workers."""
    for row in rows(swept).filter(pl.col("seed") == 43).drop("artifacts").to_dicts():
        printed = reproduce("trial", "--strategy", row["strategy"], "--model", row["model"], "--task", row["task"],
                            "--seed", "43", *SMALL, "--json")  # fmt: skip
        alone: dict[str, Any] = json.loads(printed[printed.index("{") : printed.rindex("}") + 1])
        for name in set(TRIAL_SCHEMA) - INCIDENTAL:
            assert alone[name] == row[name], name


def test_running_again_runs_nothing(reproduce: Program, swept: Path) -> None:
    before = stamps(swept)
    output = reproduce("run", "--tasks", "tiny-cb", "--strategies", "ALL,LoRA,ADT-L50", "--seeds", "42,43", *SMALL,
                       "--artifacts", str(swept))  # fmt: skip
    assert "All 6 trials are finished already" in output
    assert stamps(swept) == before


def test_a_wider_grid_runs_only_what_is_new_and_what_is_damaged(
    reproduce: Program, swept: Path, tmp_path: Path
) -> None:
    """With a copy of the model, at a path relative to the caller's folder; workers run in other folders."""
    shutil.copytree(MODELS["tiny-gemma"].config_file.parent, tmp_path / "copy")
    victim = sorted((swept / "steps").rglob("*.parquet"))[0]
    content = victim.read_bytes()
    victim.write_bytes(content[: len(content) // 2])
    output = reproduce("status", swept, expect=1)
    assert victim.name in output
    assert "1 missing" in output
    before = stamps(swept)
    output = reproduce("run", "--model-path", "tiny-gemma=copy", "--tasks", "tiny-cb", "--strategies",
                       "ALL,BOT50,LoRA,ADT-L50", "--seeds", "42,43", *SMALL, *ONE_WORKER, "--artifacts", swept,
                       "--no-report", cwd=tmp_path)  # fmt: skip
    assert "Report:" not in output
    assert "8 trials, 5 finished already, 3 to run" in output
    after = stamps(swept)
    assert len(after) == len(before) + 2
    rerun = str(Path("trials", victim.relative_to(swept / "steps")))
    assert {name for name in before if after[name] != before[name]} == {rerun}
    assert not read_trials([swept]).damaged
    assert "8 done, 0 running, 0 failed, 0 missing, of 8" in reproduce("status", swept)


def test_another_recipe_is_refused_and_changes_nothing(reproduce: Program, swept: Path) -> None:
    before = stamps(swept)
    output = reproduce("run", "--tasks", "tiny-cb", "--strategies", "ALL", *SMALL, "--set", "steps=9",
                       "--artifacts", str(swept), expect=2)  # fmt: skip
    assert "belongs to another recipe: steps = 8 there, 9 now" in output
    assert stamps(swept) == before


def test_two_sweeps_do_not_write_to_one_folder(reproduce: Program, swept: Path) -> None:
    from reproduce.store.folder_lock import exclusive_writer
    from reproduce.store.manifest import ArtifactError

    before = (swept / "sweep.json").read_bytes()
    with exclusive_writer(swept):
        with pytest.raises(ArtifactError, match="another sweep is writing"), exclusive_writer(swept):
            pass
        output = reproduce("run", "--tasks", "tiny-cb", "--strategies", "TOP75", "--seeds", "9", *SMALL,
                           "--artifacts", str(swept), expect=2)  # fmt: skip
    assert "another sweep is writing" in output
    assert (swept / "sweep.json").read_bytes() == before


def test_real_texts_run_from_the_benchmarks_own_files(
    reproduce: Program, real_data: Path, tmp_path: Path
) -> None:
    reproduce("run", "--data-dir", str(real_data), "--models", "tiny-gemma", "--tasks", "rte,cb", "--strategies",
              "BOT50", "--seeds", "42", *SMALL, *INLINE, "--no-report",
              "--artifacts", str(tmp_path / "a"))  # fmt: skip
    frame = rows(tmp_path / "a")
    assert frame["status"].to_list() == ["ok"] * 2
    assert dict(zip(frame["task"], frame["n_validation"], strict=True)) == {"cb": 56, "rte": 277}
