"""What experiment trackers receive: every step and result of each trial, and nothing unless asked."""

from __future__ import annotations

import importlib.util
import os
import struct
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from reproduce.run.trackers import TRACKERS
from reproduce.store.parquet import read_trials
from tests.reproduce.run.test_sweep import command
from tests.support.program import Program

ARGUMENTS = (
    "run", "--tasks", "tiny-cb", "--seeds", "42", "--set", "steps=8", "--set", "batch_size=4", "--set", "probe_steps=3",
    "--set", "max_train_examples=40", "--set", "max_validation_examples=40", "--engine", "inline", "--no-report",
)  # fmt: skip


def installed(tracker: str) -> bool:
    return any(importlib.util.find_spec(module) for module in TRACKERS[tracker][1])


def events(folder: Path) -> list[Any]:
    """The events of TensorBoard's files, each a record with a length and two checksums."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.rglob("events.out.*")):
        content, position = path.read_bytes(), 0
        while position < len(content):
            (length,) = struct.unpack_from("<Q", content, position)
            found.append(Event.FromString(content[position + 12 : position + 12 + length]))
            position += 12 + length + 4
    return found


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    values: dict[str, list[tuple[int, float]]] = {}
    for event in events(folder):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                values.setdefault(value.tag, []).append((event.step, value.simple_value))
    return values


def steps(folder: Path, run_id: str) -> pl.DataFrame:
    (path,) = [path for path in read_trials([folder]).steps if run_id in path.name]
    return pl.read_parquet(path, hive_partitioning=False).sort("step")


@pytest.mark.sweep
def test_tensorboard_has_the_numbers_of_the_artifact_folder(reproduce: Program, tmp_path: Path) -> None:
    reproduce(*ARGUMENTS, "--strategies", "BOT50,ADT-L50", "--log-to", "tensorboard", "--log-to", "tensorboard",
              "--artifacts", "a", cwd=tmp_path)  # fmt: skip
    rows = read_trials([tmp_path / "a"]).frame.to_dicts()
    assert len(rows) == 2
    for row in rows:
        name = f"tiny-gemma/tiny-cb/{row['strategy']}/seed42-{row['run_id']}"
        logged, written = scalars(tmp_path / "runs" / "embedded" / name), steps(tmp_path / "a", row["run_id"])
        for column in ("loss", "learning_rate", "grad_norm", "seconds"):
            # TensorBoard keeps 32 bits.
            expected = [
                (n, float(np.float32(value))) for n, value in written.select("step", column).iter_rows()
            ]
            assert logged[f"train/{column}"] == expected
        assert logged["eval/accuracy"] == [(8, float(np.float32(row["validation_accuracy"])))]
        (text,) = [
            value.tensor.string_val[0].decode()
            for event in events(tmp_path / "runs" / "embedded" / name)
            for value in event.summary.value
            if value.HasField("tensor")
        ]
        for shown in (
            f'"run_id": "{row["run_id"]}"',
            '"recipe_steps": 8',
            f'"strategy": "{row["strategy"]}"',
        ):
            assert shown in text


@pytest.mark.sweep
def test_nothing_is_logged_unless_asked(reproduce: Program, tmp_path: Path) -> None:
    reproduce(*ARGUMENTS, "--strategies", "BOT50", "--artifacts", "a", cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.sweep
def test_a_tracker_that_fails_costs_no_trial_and_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        command(*ARGUMENTS, "--strategies", "BOT50", "--log-to", "tensorboard", "--artifacts", str(tmp_path / "a")),
        env=os.environ | {"TENSORBOARD_LOGGING_DIR": str(tmp_path / "file")},
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.count("problem: ") == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert read_trials([tmp_path / "a"]).frame["status"].to_list() == ["ok"]


@pytest.mark.sweep
def test_mlflow_has_the_numbers_of_the_artifact_folder(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'lfreeze[mlflow]'")
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    subprocess.run(
        command(*ARGUMENTS, "--strategies", "BOT50", "--log-to", "mlflow", "--artifacts", str(tmp_path / "a")),
        env=os.environ | {"MLFLOW_TRACKING_URI": store, "MLFLOW_EXPERIMENT_NAME": "freezing"},
        cwd=tmp_path, check=True, timeout=280,
    )  # fmt: skip
    client = mlflow.MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("freezing").experiment_id])
    (row,) = read_trials([tmp_path / "a"]).frame.to_dicts()
    assert run.info.status == "FINISHED"
    assert run.info.run_name == f"tiny-gemma/tiny-cb/BOT50/seed42-{row['run_id']}"
    assert run.data.params["recipe_steps"] == "8"
    assert run.data.metrics["eval_accuracy"] == row["validation_accuracy"]
    history = [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, "loss")]
    assert history == steps(tmp_path / "a", row["run_id"]).select("step", "loss").rows()


@pytest.mark.parametrize("tracker", sorted(TRACKERS))
def test_a_tracker_that_is_not_installed_is_named_with_its_extra(
    tracker: str, reproduce: Program, tmp_path: Path
) -> None:
    if installed(tracker):
        pytest.skip(f"{tracker} is installed")
    message = reproduce(*ARGUMENTS, "--log-to", tracker, "--artifacts", tmp_path / "a", expect=2)
    assert message == f"error: --log-to {tracker} needs its package: pip install 'lfreeze[{tracker}]'\n"
    assert not (tmp_path / "a").exists()


def test_every_tracker_is_an_option_and_an_extra(reproduce: Program) -> None:
    extras = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8"))
    assert set(TRACKERS) <= set(extras["project"]["optional-dependencies"])
    message = reproduce("run", "--log-to", "paper", expect=2)
    for tracker in TRACKERS:
        assert tracker in message
