"""Provenance says what ran, and nothing about who ran it where."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

from reproduce.run.worker import TrialWorker
from reproduce.store.parquet import trial_frame
from reproduce.store.provenance import hardware, software
from tests.reproduce.run.test_worker import run, small_space, trial_specs


def test_versions_are_those_that_run() -> None:
    columns = software()
    assert columns["torch_version"] == torch.__version__
    assert columns["transformers_version"] == transformers.__version__
    assert columns["python_version"] == ".".join(map(str, sys.version_info[:3]))


def test_the_commit_is_the_checkouts() -> None:
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        assert software()["git_commit"] is None
        return
    head = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    assert software()["git_commit"] == (head.stdout.strip() or None)


def test_a_row_names_no_person_machine_or_folder() -> None:
    space, inputs = small_space("ALL", learning_rate="1e30")
    rows = [
        trial_frame(run(TrialWorker(), spec, inputs).row).to_dicts()[0] for spec in trial_specs(space, inputs)
    ]
    text = " ".join(str(value) for row in rows for value in row.values())
    secrets = [socket.gethostname(), str(Path.home()), os.getcwd(), str(Path(__file__).parents[3])]
    for secret in secrets:
        if len(secret) > 1:
            assert secret not in text
    assert f"/{getpass.getuser()}" not in text


def test_the_processor_is_named() -> None:
    columns = hardware("cpu")
    assert columns["cpu_model"]
    assert columns["gpu_name"] is None


@pytest.mark.parametrize(("mode", "recorded"), [("default", False), ("warn", False), ("error", True)])
def test_only_strict_mode_counts_as_deterministic(mode: str, recorded: bool) -> None:
    before = torch.get_deterministic_debug_mode()
    try:
        torch.set_deterministic_debug_mode(mode)
        assert hardware("cpu")["deterministic_algorithms"] is recorded
    finally:
        torch.set_deterministic_debug_mode(before)
