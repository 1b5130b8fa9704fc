"""Sweeps without Ray, whole or in shards: the numbers of one sweep on Ray, resumption, failures, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from reproduce.run.preflight import SOCKET_PATH_BYTES
from reproduce.store.parquet import read_trials, scan_table
from reproduce.store.schema import CHECKSUM_COLUMNS, ROW_CHECKSUM
from tests.reproduce.run.test_sweep import FEW_EXAMPLES, INLINE, ONE_WORKER, SMALL, command, rows, stamps
from tests.reproduce.run.test_worker import INCIDENTAL
from tests.support.program import Program

pytestmark = pytest.mark.sweep

SPACE = (
    "run",
    "--tasks",
    "tiny-cb",
    "--strategies",
    "ALL,LoRA,BOT50,ADT-L50",
    "--seeds",
    "42,43",
    *SMALL,
    *FEW_EXAMPLES,
)
# Checksums cover times, too.
NOT_NUMBERS = [*INCIDENTAL, ROW_CHECKSUM, *CHECKSUM_COLUMNS.values(), "artifacts"]
# The longest that a process id makes the paths of Ray's sockets.
LONGEST_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"


@pytest.fixture(scope="module")
def swept(reproduce: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The space in one sweep on Ray, which a tracker receives."""
    folder = tmp_path_factory.mktemp("sweep") / "whole"
    logged = ("--log-to", "tensorboard")
    reproduce(*SPACE, *ONE_WORKER, *logged, "--artifacts", folder, "--no-report", cwd=folder.parent)
    return folder


@pytest.fixture(scope="module")
def shards(reproduce: Program, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The space in three shards: two with the inline engine, one on Ray with the longest paths that it can use."""
    root = tmp_path_factory.mktemp("shards")
    folders = [root / f"shard-{index}" for index in (1, 2, 3)]
    for index, folder in enumerate(folders[:2], start=1):
        reproduce(*SPACE, *INLINE, "--shard", f"{index}/3", "--artifacts", folder, "--no-report")
    scratch = Path("/tmp") / f"{os.getpid()}-".ljust(
        SOCKET_PATH_BYTES - len(LONGEST_SOCKET) - len("/tmp/"), "x"
    )
    scratch.mkdir()
    subprocess.run(
        command(*SPACE, *ONE_WORKER, "--shard", "3/3", "--artifacts", str(folders[2]), "--no-report"),
        check=True, timeout=250, env=os.environ | {"RAY_TMPDIR": str(scratch)},
    )  # fmt: skip
    return folders


def test_shards_of_both_engines_merged_are_one_sweep_to_the_last_bit(
    reproduce: Program, swept: Path, shards: list[Path], tmp_path: Path
) -> None:
    sizes = [rows(folder).height for folder in shards]
    assert sum(sizes) == 8
    assert min(sizes) > 0
    merged = tmp_path / "merged"
    output = reproduce("merge", *shards, "--into", merged)
    assert "8 trials, 8 done, 0 missing; 8 trials copied from 3 folders" in output
    assert_frame_equal(rows(merged).drop(NOT_NUMBERS), rows(swept).drop(NOT_NUMBERS), check_exact=True)
    assert rows(swept)["status"].to_list() == ["ok"] * 8
    for table, key in (("steps", "step"), ("predictions", "example_id")):
        one, other = (
            scan_table([read_trials([folder])], table)
            .collect()
            .sort("run_id", key)
            .drop("seconds", strict=False)
            for folder in (merged, swept)
        )
        assert one.height == 8 * {"steps": 8, "predictions": 40}[table]
        assert_frame_equal(one, other, check_exact=True)
    # The merged folder is one of the whole space: a sweep has nothing to add to it.
    before = stamps(merged)
    assert "All 8 trials are finished already" in reproduce(*SPACE, "--artifacts", merged, "--no-report")
    assert stamps(merged) == before


def test_a_sweep_on_ray_logs_every_trial_once(swept: Path) -> None:
    logged = {path.parent.name.rpartition("-")[2] for path in (swept.parent / "runs").rglob("events.out.*")}
    assert logged == set(rows(swept)["run_id"])
    assert len(list((swept.parent / "runs").rglob("events.out.*"))) == 8


def test_a_shard_starts_again_where_it_stopped(reproduce: Program, shards: list[Path]) -> None:
    before = stamps(shards[0])
    output = reproduce(*SPACE, *INLINE, "--shard", "1/3", "--artifacts", shards[0], "--no-report")
    assert f"All {len(before)} trials are finished already" in output
    assert stamps(shards[0]) == before


def test_an_empty_shard_is_no_failure_and_leaves_no_folder(reproduce: Program, tmp_path: Path) -> None:
    one = ("run", "--tasks", "tiny-cb", "--strategies", "ALL", "--seeds", "42", *SMALL, *INLINE)
    outputs = [
        reproduce(*one, "--shard", f"{index}/2", "--artifacts", tmp_path / str(index), "--no-report")
        for index in (1, 2)
    ]
    assert sum("no trial of the space is in this shard; nothing to run" in each for each in outputs) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_the_inline_engine_imports_no_ray(reproduce: Program, tmp_path: Path) -> None:
    arguments = [
        "run",
        "--tasks",
        "tiny-cb",
        "--strategies",
        "BOT50",
        "--seeds",
        "42",
        *SMALL,
        *INLINE,
        "--no-report",
    ]
    source = (
        "import sys\n"
        f"sys.argv = ['reproduce', *{arguments}, '--artifacts', {str(tmp_path / 'a')!r}]\n"
        "from reproduce.__main__ import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end\n"
        "assert 'torch' in sys.modules\n"
        "assert not [name for name in sys.modules if name.partition('.')[0] == 'ray']\n"
    )
    subprocess.run([*command()[:1], "-c", source], check=True, timeout=200)
    assert rows(tmp_path / "a")["status"].to_list() == ["ok"]


def test_ctrl_c_keeps_finished_trials_and_the_same_command_continues(
    reproduce: Program, tmp_path: Path
) -> None:
    folder = tmp_path / "a"
    arguments = (*SPACE, "--set", "steps=60", *INLINE, "--artifacts", str(folder), "--no-report")
    with subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as driver:
        deadline = time.monotonic() + 200
        while len(stamps(folder)) < 2:
            assert driver.poll() is None, driver.stdout.read() if driver.stdout else ""
            assert time.monotonic() < deadline
            time.sleep(0.02)
        driver.send_signal(signal.SIGINT)
        output, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130, output
    assert "interrupted (SIGINT): finished trials are kept, and the same command continues" in output
    assert "Traceback" not in output
    survived = stamps(folder)
    assert 2 <= len(survived) < 8
    assert set(rows(folder)["status"]) == {"ok"}
    assert f"{len(survived)} finished already" in reproduce(*arguments)
    after = stamps(folder)
    assert len(after) == 8
    assert {name: after[name] for name in survived} == survived
    assert rows(folder).select("status", "attempt").unique().rows() == [("ok", 1)]


def test_failed_trials_are_rows_and_run_again(reproduce: Program, tmp_path: Path) -> None:
    arguments = ("run", "--tasks", "tiny-cb", "--strategies", "ALL,BOT50", "--seeds", "42", *SMALL, *INLINE,
                 "--set", "learning_rate=1e30", "--artifacts", tmp_path / "a", "--no-report")  # fmt: skip
    output = reproduce(*arguments, expect=1)
    assert output.count("TrainingError") == 2
    assert rows(tmp_path / "a").select("status", "attempt").rows() == [("error", 1)] * 2
    reproduce(*arguments, "--fail-fast", expect=1)
    assert sorted(rows(tmp_path / "a")["attempt"]) == [1, 2]


def test_single_trials_fill_a_folder_that_a_sweep_completes(
    reproduce: Program, swept: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "a"

    def trial(strategy: str, *more: str, expect: int = 0) -> str:
        one = ("--strategy", strategy, "--model", "tiny-gemma", "--task", "tiny-cb", "--seed", "43")
        return reproduce("trial", *one, *SMALL, *FEW_EXAMPLES, *more, "--artifacts", folder, expect=expect)

    assert "accuracy 0." in trial("BOT50")
    first = stamps(folder)
    assert len(first) == 1
    assert "The trial is in" in trial("BOT50")
    assert stamps(folder) == first
    message = trial("ALL", "--set", "steps=9", expect=2)
    assert "belongs to another recipe: steps = 8 there, 9 now" in message
    trial("ALL")
    assert first.items() < stamps(folder).items()
    assert "8 trials, 2 finished already, 6 to run" in reproduce(
        *SPACE, *INLINE, "--artifacts", folder, "--no-report"
    )
    assert first.items() < stamps(folder).items()
    assert_frame_equal(rows(folder).drop(NOT_NUMBERS), rows(swept).drop(NOT_NUMBERS), check_exact=True)


def test_a_single_trial_that_fails_is_a_row_and_runs_again(reproduce: Program, tmp_path: Path) -> None:
    one = ("trial", "--strategy", "ALL", "--model", "tiny-gemma", "--task", "tiny-cb", *SMALL,
           "--set", "learning_rate=1e30", "--artifacts", tmp_path / "a")  # fmt: skip
    for attempt in (1, 2):
        assert "TrainingError" in reproduce(*one, expect=1)
        assert rows(tmp_path / "a").select("status", "attempt").rows() == [("error", attempt)]
    assert pl.read_parquet(tmp_path / "a" / "trials" / "**" / "*.parquet")["error_type"].to_list() == [
        "TrainingError"
    ]
