"""Trials that fail, workers that are killed, a driver that is killed: what a sweep on Ray keeps and repeats."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.reproduce.run.test_sweep import FEW_EXAMPLES, INLINE, ONE_WORKER, SMALL, command, rows, stamps
from tests.support.program import Program

pytestmark = pytest.mark.sweep


def test_failed_trials_are_rows_and_the_sweep_continues(reproduce: Program, tmp_path: Path) -> None:
    """On Ray, then in one process."""
    arguments = ("run", "--tasks", "tiny-cb", "--strategies", "ALL,BOT50", "--seeds", "42", *SMALL,
                 "--set", "learning_rate=1e30", "--artifacts", str(tmp_path / "a"))  # fmt: skip
    output = reproduce(*arguments, *ONE_WORKER, expect=1)
    assert output.count("TrainingError") == 2
    assert "is nan at step 2" in output
    frame = rows(tmp_path / "a")
    assert frame["status"].to_list() == ["error", "error"]
    assert frame["attempt"].to_list() == [1, 1]
    assert "0 done, 0 running, 2 failed" in reproduce("status", str(tmp_path / "a"), expect=1)
    reproduce(*arguments, *INLINE, "--fail-fast", "--no-report", expect=1)
    assert sorted(rows(tmp_path / "a")["attempt"].to_list())[1] == 2


@pytest.mark.faults
def test_workers_that_rays_memory_monitor_kills_are_rows_with_the_reason(tmp_path: Path) -> None:
    """It kills workers during training, with an error that would end Tune; here, every few seconds."""
    arguments = command("run", "--tasks", "tiny-cb", "--strategies", "ALL", "--seeds", "42", *SMALL,
                        "--set", "steps=5000", "--no-report", "--artifacts", str(tmp_path / "a"))  # fmt: skip
    monitor = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "8000"}
    done = subprocess.run(
        arguments, capture_output=True, text=True, timeout=280, check=False, env=os.environ | monitor
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("a worker died; its trial restarts") == 2
    (row,) = rows(tmp_path / "a").to_dicts()
    assert row["error_type"] == "WorkerDied"
    assert "killed due to the node running low on memory" in row["error_message"]
    assert not re.search(r"\d+\.\d+\.\d+\.\d+|/tmp/", row["error_message"])


@pytest.mark.faults
def test_a_killed_driver_loses_nothing_and_repeats_nothing(reproduce: Program, tmp_path: Path) -> None:
    """Killed with two workers; continued with one."""
    folder = tmp_path / "a"
    arguments = ("run", "--tasks", "tiny-cb", "--strategies", "ALL,LoRA,BOT25,BOT50", "--seeds", "42,43", *SMALL,
                 *FEW_EXAMPLES, "--set", "steps=30", "--artifacts", str(folder))  # fmt: skip
    with subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as driver:
        deadline = time.monotonic() + 120
        while len(list(folder.glob("trials/**/*.parquet"))) < 2:
            assert driver.poll() is None, driver.stdout.read() if driver.stdout else ""
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(driver.pid, signal.SIGKILL)
    survived = stamps(folder)
    assert 2 <= len(survived) < 8
    assert f"{len(survived)} finished already" in reproduce(*arguments, *ONE_WORKER)
    after = stamps(folder)
    assert len(after) == 8
    assert {name: after[name] for name in survived} == survived
    assert set(rows(folder)["attempt"]) == {1}
    assert (folder / "report" / "report.html").is_file()
