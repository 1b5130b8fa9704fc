"""A cluster whose GPUs differ: each node takes what fits into its memory, as many at once as fit.

The GPUs are Ray's word and a stand-in for what torch says of them; the trials compute on the CPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from tests.cluster.network import Network, missing
from tests.cluster.test_cluster import check, start, worker_logs
from tests.reproduce.run.test_sweep import SMALL
from tests.support.gpus import stand_in
from tests.support.program import CODE

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

# By the closed form, ALL and TOP50 need 521 and 524 MiB with the CUDA context, BOT50 and BOT75 less than 519.
SMALL_GPU, LARGE_GPU = ("Small GPU", 519, 1), ("Large GPU", 2048, 3)
GRID = ("--tasks", "tiny-cb", "--strategies", "ALL,BOT50,BOT75,TOP50", "--set", "steps=60", *SMALL[2:])


def start_worker(network: Network, index: int, gpu: tuple[str, int, int], folder: Path) -> None:
    """A node with one GPU, called by its name there."""
    name, size, cpus = gpu
    own = folder / name.replace(" ", "")
    stand_in(own, [(name, size * 2**20, f"GPU of {name}")])
    options = ("--num-cpus", str(cpus), "--num-gpus", "1")
    path = os.pathsep.join(map(str, (own, CODE)))
    network.start_worker(network.workers[index], {"PYTHONPATH": path}, options)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tools")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("driver")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, home: Path, tools: Path) -> Iterator[Network]:
    with Network(tmp_path_factory.mktemp("network"), 2, home) as network:
        network.start_head()
        start_worker(network, 0, LARGE_GPU, tools)
        start_worker(network, 1, SMALL_GPU, tools)
        network.wait_for_nodes(3)
        yield network


def sweep(network: Network, artifacts: Path, seeds: str, *options: str) -> list[str]:
    return network.head.command(
        "reproduce", "run", "--address", network.address, *GRID, "--seeds", seeds, "--artifacts", str(artifacts),
        *options,
    )  # fmt: skip


def begun(network: Network, index: int, seeds: str) -> set[str]:
    """The strategies of the trials with these seeds that began on a worker."""
    lines = [line for line in worker_logs(network, index).splitlines() if line.endswith(": begins")]
    return {line.split("/")[2] for line in lines if line.split("seed")[1][:-8] in seeds.split(",")}


def test_each_node_takes_what_fits(network: Network, home: Path) -> None:
    large, small = network.workers
    driver = start(sweep(network, home / "a", "1,2,3,4"), home / "a", 1)
    output, _ = driver.communicate(timeout=280)
    assert driver.returncode == 0, output
    assert (
        f"node {large.address} (1 × Large GPU, 2 GiB): 3 trials at once, each with 0.3333 of a GPU; all trials fit"
        in output
    )
    assert (
        f"node {small.address} (1 × Small GPU, 1 GiB): 1 trials at once, each with 1 of a GPU; 8 of 16 trials fit"
        in output
    )
    rows = check(home / "a", 16)
    assert begun(network, 1, "1,2,3,4") <= {"BOT50", "BOT75"}
    assert begun(network, 1, "1,2,3,4")
    assert begun(network, 0, "1,2,3,4") >= {"ALL", "TOP50"}
    shares = rows.group_by("strategy").agg(pl.col("gpu_share").unique())
    by_strategy = {row["strategy"]: set(row["gpu_share"]) for row in shares.to_dicts()}
    assert by_strategy["ALL"] == by_strategy["TOP50"] == {0.3333}
    assert 1.0 in by_strategy["BOT50"] | by_strategy["BOT75"]
    assert rows.filter(pl.col("exclusive") != (pl.col("gpu_share") == 1)).height == 0


def test_times_are_taken_on_one_kind_alone(network: Network, home: Path, tmp_path: Path) -> None:
    """In a space that measures speed, where all trials fit on one of the two."""
    space = tmp_path / "timed.toml"
    space.write_text('extends = "embedded"\nexclusive = true\n')
    words = sweep(network, home / "timed", "1")
    words.insert(words.index("run") + 1, str(space))
    driver = start(words, home / "timed", 1)
    output, _ = driver.communicate(timeout=280)
    assert driver.returncode == 0, output
    assert f"node {network.workers[1].address} (1 × Small GPU, 1 GiB): not used" in output
    rows = check(home / "timed", 4)
    assert set(rows["gpu_share"]) == {1.0}
    assert rows["exclusive"].all()


def test_a_trial_that_fits_nowhere_is_told_before_any_starts(network: Network, home: Path) -> None:
    done = network.head.run(
        *sweep(network, home / "big", "1", "--models", "gemma-2b", "--weights", "random")[6:]
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "the largest trial of embedded needs" in done.stderr
    assert "times the 2 GiB of the largest GPU of this cluster" in done.stderr


def test_what_waits_for_a_node_that_dies_runs_elsewhere(network: Network, home: Path, tools: Path) -> None:
    driver = start(sweep(network, home / "small", "5,6,7,8"), home / "small", 3)
    network.workers[1].kill()
    output, _ = driver.communicate(timeout=280)
    assert driver.returncode == 0, output
    assert "Last result" not in output
    check(home / "small", 16)
    network.wait_for_nodes(2)
    start_worker(network, 1, SMALL_GPU, tools)
    network.wait_for_nodes(3)


def test_trials_that_fit_on_no_node_left_wait_for_one(network: Network, home: Path, tools: Path) -> None:
    log = home / "large.log"
    with log.open("w") as told:
        driver = start(sweep(network, home / "large", "9,10,11,12"), home / "large", 3, told)
    network.workers[0].kill()
    network.wait(lambda: "no node can run the next trial" in log.read_text(), 150)
    start_worker(network, 0, LARGE_GPU, tools)
    assert driver.wait(280) == 0, log.read_text()
    check(home / "large", 16)


def test_gpus_that_torch_cannot_use_or_two_nodes_give_out(network: Network, home: Path, tools: Path) -> None:
    """Last: it leaves a node of another kind."""
    worker = network.workers[1]
    worker.kill()
    network.wait_for_nodes(2)
    start_worker(network, 1, LARGE_GPU, tools)
    network.wait_for_nodes(3)
    done = network.head.run(*sweep(network, home / "twice", "1")[6:])
    assert done.returncode == 2, done.stdout + done.stderr
    assert "both offer the GPU GPU of Large GPU: start one Ray node on a machine" in done.stderr
    worker.kill()
    network.wait_for_nodes(2)
    network.start_worker(worker, None, ("--num-cpus", "1", "--num-gpus", "1"))
    network.wait_for_nodes(3)
    done = network.head.run(*sweep(network, home / "none", "1")[6:])
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"node {worker.address}: Ray offers 1 GPUs there, but torch can use 0" in done.stderr
    wide = sweep(network, home / "wide", "1", "--set", "cpu_threads=64", "--gpus-per-trial", "0")
    done = network.head.run(*wide[6:])
    assert done.returncode == 2, done.stdout + done.stderr
    assert "no node of this cluster has the 64 CPUs that a trial needs" in done.stderr
