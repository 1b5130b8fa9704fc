"""Sweeps in classes by the share of a GPU, and trials that are too large for it.

The two GPUs are Ray's word, and a stand-in for what torch says of them; the trials compute on the CPU.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import psutil
import pytest

from reproduce.plan.cost import Assumptions, plan_space
from reproduce.plan.search_space import load_space
from reproduce.store.parquet import TRIAL_SCHEMA
from tests.reproduce.run.test_sweep import FEW_EXAMPLES, ONE_WORKER, SMALL, command, rows, stamps
from tests.reproduce.run.test_worker import INCIDENTAL
from tests.support.gpus import stand_in
from tests.support.program import CODE, Program

pytestmark = [pytest.mark.sweep, pytest.mark.faults]

# ALL needs more memory than BOT75.
GRID = (
    "run",
    "--no-report",
    "--tasks",
    "tiny-cb",
    "--strategies",
    "BOT75,ALL",
    "--seeds",
    "42,43",
    *SMALL,
    *FEW_EXAMPLES,
)
NEEDED = {
    trial.factors.strategy: trial.gpu_share
    for space in [
        load_space(
            "embedded",
            {"tasks": ["tiny-cb"], "strategies": ["BOT75", "ALL"], "seeds": ["42"]},
            dict(pair.split("=") for pair in SMALL[1::2]),
        )
    ]
    # The share of a GPU with one byte is the number of bytes.
    for trial in plan_space(space, Assumptions(1, 1.0))
}
MIB = 2**20
# Two of BOT75 fit this GPU, one of ALL; the other has room for BOT75 only, the last for neither.
SHARED = int(2 * NEEDED["BOT75"]) + MIB
TIGHT = int(NEEDED["BOT75"]) + MIB
TINY = int(NEEDED["BOT75"]) - MIB


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tools")


@pytest.fixture(scope="module")
def gpus(tools: Path) -> Callable[[int], None]:
    """Gives this machine two GPUs with as many bytes each."""
    return lambda size: stand_in(tools, [("GPU", size, "first"), ("GPU", size, "second")])


@pytest.fixture(scope="module")
def simulated(tools: Path, gpus: Callable[[int], None]) -> Iterator[Program]:
    gpus(SHARED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_OVERRIDE_RESOURCES", '{"GPU": 2}')
        with Program(CODE, tools) as program:
            yield program


@pytest.fixture(scope="module")
def classes(
    simulated: Program, gpus: Callable[[int], None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("classes") / "a"
    gpus(SHARED)
    output = simulated(*GRID, "--artifacts", folder)
    assert "Share of a GPU, one class after another: 1 (2 trials), 1/2 (2 trials)" in output
    assert "4 of 4 trials done, 0 failed" in output
    return folder


def test_the_grid_is_ordered_so_that_a_class_is_not_the_order_of_running() -> None:
    assert NEEDED["ALL"] > NEEDED["BOT75"] + 2 * MIB


def test_the_largest_share_runs_first_and_classes_do_not_overlap(classes: Path) -> None:
    frame = rows(classes)
    assert dict(frame.group_by("strategy").agg(pl.col("gpu_share").unique().first()).iter_rows()) == {
        "ALL": 1.0,
        "BOT75": 0.5,
    }
    first, second = (frame.filter(pl.col("strategy") == name) for name in ("ALL", "BOT75"))
    assert max(first["finished_at"]) < min(second["started_at"])
    assert first["exclusive"].all()


def test_each_class_has_workers_of_its_own(classes: Path) -> None:
    """A worker counts its trials from 0."""
    for _, own in rows(classes).group_by("strategy"):
        counts = own["worker_trial_index"].value_counts().sort("worker_trial_index")["count"].to_list()
        assert sorted(own["worker_trial_index"].unique()) == list(range(len(counts)))
        assert counts == sorted(counts, reverse=True)


def test_the_numbers_do_not_depend_on_the_share(simulated: Program, classes: Path, tmp_path: Path) -> None:
    output = simulated(*GRID, "--gpus-per-trial", "1", *ONE_WORKER, "--artifacts", tmp_path / "one")
    assert "Share of a GPU: 1 (4 trials)" in output
    one, other = rows(tmp_path / "one"), rows(classes)
    assert set(one["gpu_share"]) == {1.0}
    for name in set(TRIAL_SCHEMA) - INCIDENTAL - {"gpu_share"}:
        assert one[name].to_list() == other[name].to_list(), name


def test_a_failed_trial_ends_later_classes_only_with_fail_fast(simulated: Program, tmp_path: Path) -> None:
    arguments = (*GRID, "--set", "learning_rate=1e30", *ONE_WORKER, "--artifacts", tmp_path / "a")
    output = simulated(*arguments, "--fail-fast", expect=1)
    assert rows(tmp_path / "a")["strategy"].to_list() == ["ALL"]
    assert "0 of 4 trials done, 1 failed" in output
    assert "3 trials have no result" in output
    output = simulated(*arguments, expect=1)
    assert "0 of 4 trials done, 4 failed" in output
    frame = rows(tmp_path / "a")
    assert dict(frame["strategy"].value_counts().iter_rows()) == {"ALL": 2, "BOT75": 2}
    assert set(frame["status"]) == {"error"}
    first, second = (frame.filter(pl.col("strategy") == name) for name in ("ALL", "BOT75"))
    assert max(first["finished_at"]) < min(second["started_at"])


@pytest.fixture
def environment(tools: Path, simulated: Program) -> dict[str, str]:
    """That of a command in a process of its own, with the GPUs of ``simulated``."""
    path = os.pathsep.join(map(str, (CODE, tools)))
    return {**os.environ, "PYTHONPATH": path, "RAY_OVERRIDE_RESOURCES": '{"GPU": 2}'}


def started(arguments: tuple[str, ...], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def wait_for_training(driver: subprocess.Popen[str], folder: Path) -> None:
    """Until a trial of the first class runs."""
    deadline = time.monotonic() + 120
    while not ((folder / "running.json").is_file() and "/ALL/" in (folder / "running.json").read_text()):
        assert driver.poll() is None, driver.stdout.read() if driver.stdout else ""
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_worker_restarts_its_trial_in_its_class(environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with started((*GRID, "--set", "steps=300", "--artifacts", str(folder)), environment) as driver:
        wait_for_training(driver, folder)
        for process in psutil.Process(driver.pid).children(recursive=True):
            if "WarmTrial" in "".join(process.cmdline()) or "lfreeze worker" in "".join(process.cmdline()):
                process.kill()
                break
        output, _ = driver.communicate(timeout=200)
    assert driver.returncode == 0, output
    assert output.count("a worker died; its trial restarts") == 1
    frame = rows(folder)
    assert frame["status"].to_list() == ["ok"] * 4
    first, second = (frame.filter(pl.col("strategy") == name) for name in ("ALL", "BOT75"))
    assert max(first["finished_at"]) < min(second["started_at"])


def test_an_interruption_ends_all_classes(environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with started((*GRID, "--set", "steps=3000", "--artifacts", str(folder)), environment) as driver:
        wait_for_training(driver, folder)
        driver.send_signal(signal.SIGINT)
        output, _ = driver.communicate(timeout=100)
    assert driver.returncode == 130, output
    assert not list(folder.glob("trials/**/*.parquet"))


NO_NODE = """
from pathlib import Path
from reproduce.plan.inputs import find_inputs, trial_specs
from reproduce.plan.search_space import load_space
from reproduce.run import dispatcher
from reproduce.run.placement import NodeGroup, Resources
from reproduce.run.ray_session import ray_session

dispatcher._PATIENCE_SECONDS = 1.0
narrow = {"tasks": ["tiny-cb"], "strategies": ["ALL", "BOT75"], "seeds": ["42"]}
space = load_space("embedded", narrow, RECIPE)
inputs = find_inputs(space)
whole, part = trial_specs(space, inputs)
with ray_session(None):
    from reproduce.run.results import SweepOptions
    from reproduce.run.sweep import SweepClass, run_sweep

    left = SweepClass([whole], Resources(1, (NodeGroup(1.0, "10.9.9.9", 1),)))
    here = SweepClass([part], Resources(1, (NodeGroup(0.5),)))
    for classes in ([left, here], [here]):
        attempts = {whole.run_id: 1, part.run_id: 1}
        print(run_sweep(classes, inputs, Path(FOLDER), SweepOptions(attempts)).done)
"""


def test_a_class_whose_nodes_have_left_ends_the_sweep(simulated: Program, tmp_path: Path) -> None:
    """Later classes would wait as long, one after another."""
    recipe = dict(pair.split("=") for pair in SMALL[1::2])
    source = NO_NODE.replace("RECIPE", repr(recipe)).replace("FOLDER", repr(str(tmp_path)))
    # The trial of the second class can run.
    assert simulated.execute(source).split() == ["0", "1"]


def test_what_does_not_fit_is_refused_with_the_way_to_run_the_rest(
    simulated: Program, gpus: Callable[[int], None], tmp_path: Path
) -> None:
    gpus(TIGHT)
    output = simulated(*GRID, "--artifacts", tmp_path / "a", expect=2)
    assert "--what-fits runs the 2 of 4 trials that fit" in output
    assert "times the 1 GiB of the largest GPU of this machine" in output
    gpus(TINY)
    output = simulated(*GRID, "--artifacts", tmp_path / "a", expect=2)
    assert "none of 4 trials fits, choose fewer models" in output
    output = simulated(*GRID, "--what-fits", "--artifacts", tmp_path / "a", expect=2)
    assert re.search(r"error: --what-fits: no trial of embedded fits the GPUs of this machine: the smallest, "
                     r"tiny-gemma/tiny-cb/BOT75/seed42, needs 0\.5 GiB, the largest GPU has 0\.5 GiB\n", output)  # fmt: skip
    assert len(output.strip().splitlines()) == 1
    assert not (tmp_path / "a").exists()


def test_what_does_not_fit_is_a_skipped_row_until_it_fits(
    simulated: Program, gpus: Callable[[int], None], tmp_path: Path
) -> None:
    folder = tmp_path / "a"
    arguments = (*GRID, *ONE_WORKER, "--what-fits", "--artifacts", folder)
    gpus(TIGHT)
    output = simulated(*arguments)
    assert "2 of 4 trials done, 0 failed, 2 skipped" in output
    frame = rows(folder)
    assert dict(frame.select("strategy", "status").unique().iter_rows()) == {"ALL": "skipped", "BOT75": "ok"}
    skipped = frame.filter(pl.col("status") == "skipped")
    message = f"needs {NEEDED['ALL'] / 2**30:.1f} GiB, the largest GPU has {TIGHT / 2**30:.1f} GiB"
    assert set(skipped.select("error_type", "error_message").iter_rows()) == {("DoesNotFit", message)}
    status = simulated("status", folder)
    assert "2 done, 0 running, 0 failed, 2 skipped, 0 missing, of 4" in status
    assert f"skipped  tiny-gemma/tiny-cb/ALL/seed42: DoesNotFit: {message}" in status
    simulated("report", folder)
    report = (folder / "report" / "report.md").read_text()
    assert "2 of 4 trials have no result (2 skipped since they do not fit the GPUs)" in report
    assert f"DoesNotFit: {message}" in report
    verified = simulated("verify", folder)
    assert (
        "2 of the 2 trials that the folder lists have a result; skipped, since they do not fit the GPUs: 2"
        in verified
    )
    assert "2 of 4 trials have no result" in simulated("publish", folder, tmp_path / "p", expect=2)
    before = stamps(folder)
    again = simulated(*arguments)
    assert "Share of a GPU" not in again
    assert stamps(folder) == before
    gpus(SHARED)
    simulated(*GRID, *ONE_WORKER, "--artifacts", folder)
    frame = rows(folder)
    assert frame["status"].to_list() == ["ok"] * 4
    assert frame["attempt"].to_list() == [1] * 4
    assert {name: stamp for name, stamp in stamps(folder).items() if "BOT75" in name} == {
        name: stamp for name, stamp in before.items() if "BOT75" in name
    }
