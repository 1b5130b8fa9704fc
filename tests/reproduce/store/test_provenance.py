"""Provenance says what ran, and nothing about who ran it where."""

from __future__ import annotations

import getpass
import json
import os
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
import transformers
from click.testing import CliRunner

from reproduce.cli.app import main
from reproduce.run.worker import TrialWorker
from reproduce.store.parquet import trial_frame
from reproduce.store.provenance import code_commit, hardware, other_packages, software
from tests.reproduce.run.test_worker import run, small_space, trial_specs


def test_versions_are_those_that_run() -> None:
    columns = software()
    assert columns["torch_version"] == torch.__version__
    assert columns["transformers_version"] == transformers.__version__
    assert columns["python_version"] == ".".join(map(str, sys.version_info[:3]))


def test_other_versions_of_packages_are_named() -> None:
    mine = software()["package_versions_json"]
    assert other_packages(mine, mine) is None
    versions = json.loads(mine)
    planted = versions | {"transformers": "5.0.1", "ray": "1.0"}
    del planted["peft"]
    assert other_packages(json.dumps(planted), mine) == (
        f"peft none there, {versions['peft']} here, ray 1.0 there, {versions['ray']} here, "
        f"transformers 5.0.1 there, {versions['transformers']} here"
    )
    # A head without a GPU may have torch's build for the CPU.
    torch_version = versions["torch"].partition("+")[0]
    builds = [json.dumps(versions | {"torch": torch_version + end}) for end in ("+cpu", "+cu130", "")]
    assert {other_packages(builds[0], other) for other in builds} == {None}


def test_the_commit_is_the_checkouts() -> None:
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        assert software()["git_commit"] is None
        return
    head = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    assert software()["git_commit"] == (head.stdout.strip() or None)


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def committed(folder: Path) -> str:
    """The commit of a new repository with some code."""
    (folder / "reproduce").mkdir(parents=True)
    (folder / "reproduce" / "code.py").write_text("1")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "code")
    return git(folder, "rev-parse", "HEAD")


def test_no_other_repositorys_commit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout, other = tmp_path / "checkout", tmp_path / "other"
    commit = committed(checkout)
    assert committed(other) != ""
    (other / "reproduce" / "code.py").write_text("2")
    git(other, "commit", "--quiet", "--all", "--message", "more")
    # A hook of another repository.
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert code_commit(checkout / "reproduce") == (commit, False)
    monkeypatch.delenv("GIT_DIR")
    (checkout / "reproduce" / "code.py").write_text("3")
    assert code_commit(checkout / "reproduce") == (commit, True)
    # An archive that is unpacked inside a checkout, and a wheel that is installed there.
    inner = checkout / "site-packages" / "reproduce"
    inner.mkdir(parents=True)
    assert code_commit(inner) == (None, None)
    (inner / "commit.json").write_text(json.dumps({"commit": "c" * 40, "dirty": False}))
    assert code_commit(inner) == ("c" * 40, False)


def test_the_version_names_the_commit() -> None:
    printed = CliRunner().invoke(main, ["--version"]).output
    number, commit = metadata.version("lfreeze"), software()["git_commit"]
    known = f"commit {commit[:12]}" if commit else "commit not known"
    assert printed.startswith(f"reproduce, version {number} ({known}")
    assert (", with changes)" in printed) is bool(software()["git_dirty"])


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
