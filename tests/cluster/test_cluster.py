"""A sweep on Ray nodes with addresses of their own: workers used, killed, cut off; tokens; versions; caches."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import polars as pl
import pytest

from reproduce.store.parquet import read_trials
from tests.cluster.network import TOKEN, Network, environment_with, missing
from tests.reproduce.run.test_sweep import SMALL

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]
GRID = ("--tasks", "tiny-cb", "--strategies", "ALL,BOT50,TOP50,INT50", "--set", "steps=60", *SMALL[2:])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver's folder; the workers see an empty one in its place."""
    return tmp_path_factory.mktemp("driver")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[Network]:
    with Network(tmp_path_factory.mktemp("network"), 2, home) as network:
        network.start()
        yield network


def sweep(network: Network, artifacts: Path, seeds: str, *options: str) -> list[str]:
    return network.head.command(
        "reproduce", "run", "--address", network.address, *GRID, "--seeds", seeds, "--artifacts", str(artifacts),
        *options,
    )  # fmt: skip


def start(
    command: list[str], artifacts: Path, finished: int, told: IO[str] | int = subprocess.PIPE
) -> subprocess.Popen[str]:
    """Start a sweep and come back once some trials are finished."""
    driver = subprocess.Popen(
        command, stdout=told, stderr=subprocess.STDOUT, text=True, env=environment_with()
    )
    deadline = time.monotonic() + 120
    while len(list(artifacts.glob("trials/**/*.parquet"))) < finished:
        assert driver.poll() is None, driver.stdout.read() if driver.stdout else ""
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return driver


def check(artifacts: Path, trials: int) -> pl.DataFrame:
    """Every trial is there once, and whole."""
    table = read_trials([artifacts])
    assert not table.damaged
    assert table.frame.height == table.frame["run_id"].n_unique() == trials
    assert set(table.frame["status"]) == {"ok"}
    return table.frame


def worker_logs(network: Network, index: int) -> str:
    done = network.workers[index].run("sh", "-c", "cat /tmp/ray/session_latest/logs/worker-*.err")
    return done.stdout


def test_both_workers_train_and_share_no_folder(network: Network, home: Path) -> None:
    driver = start(sweep(network, home / "a", "1,2,3"), home / "a", 1)
    output, _ = driver.communicate(timeout=240)
    assert driver.returncode == 0, output
    assert TOKEN not in output
    check(home / "a", 12)
    seen = [worker_logs(network, index) for index in (0, 1)]
    assert all("tiny-gemma/tiny-cb/" in log for log in seen), seen
    begun = [line for log in seen for line in log.splitlines() if line.endswith(": begins")]
    ended = [line for log in seen for line in log.splitlines() if ": accuracy " in line]
    assert len(begun) == len(set(begun)) == len(ended) == 12
    for worker in network.workers:
        assert worker.run("ls", str(home)).stdout == ""


def test_a_cut_of_twenty_seconds_loses_nothing(network: Network, home: Path) -> None:
    driver = start(sweep(network, home / "cut", "1,2,3,4"), home / "cut", 2)
    network.set_link(1, "down")
    time.sleep(20)
    network.set_link(1, "up")
    output, _ = driver.communicate(timeout=280)
    assert driver.returncode == 0, output
    check(home / "cut", 16)


def test_the_token_is_in_no_log_and_no_command_line(network: Network, home: Path) -> None:
    done = network.head.run("grep", "-rlaF", TOKEN, "/tmp/ray", str(home), "--include=*", "--devices=skip")
    assert done.stdout == ""
    for machine in (network.head, *network.workers):
        seen = machine.processes().values()
        assert any(b"raylet" in line for line in seen)
        assert not any(TOKEN.encode() in line for line in seen)


def test_without_the_token_nobody_gets_in(network: Network, tmp_path: Path) -> None:
    for environment, expected in (
        (
            {"RAY_AUTH_MODE": "", "RAY_AUTH_TOKEN": "", "HOME": str(tmp_path)},
            "requires a token: set RAY_AUTH_MODE=token",
        ),
        (
            {"RAY_AUTH_TOKEN": "another-token-" + "7" * 32},
            "requires a token other than the one in RAY_AUTH_TOKEN",
        ),
    ):
        done = network.head.run(
            "reproduce", "run", "--address", network.address, "--artifacts", str(tmp_path / "a"),
            environment=environment,
        )  # fmt: skip
        assert done.returncode == 2
        assert done.stderr.strip().count("\n") == 0
        assert expected in done.stderr
    jobs = network.head.run(
        "python", "-c",
        "import urllib.request, urllib.error\n"
        "try: urllib.request.urlopen('http://127.0.0.1:8265/api/jobs/')\n"
        "except urllib.error.HTTPError as error: print(error.code)",
    )  # fmt: skip
    assert jobs.stdout.strip() == "401"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.77.0.1:6380", "no Ray cluster answers at '10.77.0.1:6380'"),
        ("10.77.0.99:6379", "no Ray cluster answers at '10.77.0.99:6379'"),
        ("10.77.0.1:8080", "no healthy Ray cluster at '10.77.0.1:8080'"),
        ("ray://10.77.0.1:10001", "'ray://10.77.0.1:10001' is not auto or HOST:PORT"),
    ],
)
def test_an_address_without_a_cluster(network: Network, tmp_path: Path, address: str, expected: str) -> None:
    done = network.head.run("reproduce", "run", "--address", address, "--artifacts", str(tmp_path / "a"))
    assert done.returncode == 2
    assert expected in done.stderr
    assert done.stderr.strip().count("\n") == 0
    assert not list(tmp_path.glob("a/trials/**/*.parquet"))


@pytest.mark.parametrize(
    ("package", "sentence"),
    [
        ("lfreeze", "it has another version of this package: lfreeze_version 0.0.9"),
        ("transformers", "it has other versions of packages: transformers 0.0.9 there, "),
    ],
)
def test_a_worker_of_another_version_is_named(
    network: Network, tmp_path: Path, package: str, sentence: str
) -> None:
    """One that says it has another version, as an image built earlier would."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "sitecustomize.py").write_text(
        "from importlib import metadata\n"
        "found = metadata.version\n"
        f"metadata.version = lambda name: '0.0.9' if name == '{package}' else found(name)\n"
    )
    worker = network.workers[1]
    worker.kill()
    network.wait_for_nodes(2)
    network.start_worker(worker, {"PYTHONPATH": str(other)})
    network.wait_for_nodes(3)
    done = network.head.run(*sweep(network, tmp_path / "a", "1")[6:])
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"node {worker.address}: {sentence}" in done.stderr
    worker.kill()
    network.wait_for_nodes(2)
    network.start_worker(worker)
    network.wait_for_nodes(3)


def test_a_worker_without_the_model_is_named(network: Network, home: Path) -> None:
    """A local copy that only the driver has."""
    from lfreeze.models.catalog import MODELS

    copy = home / "copy"
    subprocess.run(["cp", "-r", str(MODELS["tiny-gemma"].config_file.parent), str(copy)], check=True)
    options = ("--model-path", f"tiny-gemma={copy}")
    done = network.head.run(*sweep(network, home / "b", "1", *options)[6:])
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"the folder {copy} does not exist" in done.stderr
    assert any(f"node {worker.address}: " in done.stderr for worker in network.workers)


def test_every_node_can_be_filled(network: Network, tmp_path: Path) -> None:
    done = network.head.run(
        "reproduce", "fetch", "--address", network.address, "--artifacts", str(tmp_path / "a")
    )
    assert done.returncode == 0, done.stderr
    for worker in network.workers:
        assert f"node {worker.address}: tiny-gemma" in done.stdout


def test_a_sweep_can_be_submitted_as_a_job(network: Network, home: Path) -> None:
    axes = f"--address auto --tasks tiny-cb --strategies ALL,BOT50 --seeds 1 --artifacts {home / 'job'}"
    # As the RayJob does.
    script = f"reproduce fetch {axes} && reproduce run {axes} {' '.join(SMALL)}"
    done = network.head.run(
        "ray", "job", "submit", "--address", "http://127.0.0.1:8265", "--", "sh", "-c", script, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    check(home / "job", 2)


def test_a_killed_workers_trials_end_elsewhere(network: Network, home: Path) -> None:
    driver = start(sweep(network, home / "killed", "1,2,3,4"), home / "killed", 3)
    network.workers[0].kill()
    output, _ = driver.communicate(timeout=280)
    assert driver.returncode == 0, output
    check(home / "killed", 16)


def test_a_head_that_ends_is_told(network: Network, home: Path) -> None:
    """Last: it leaves no cluster."""
    driver = start(sweep(network, home / "headless", "1,2,3,4"), home / "headless", 2)
    network.head.kill(b"gcs_server")
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 1, output
    sentence = f"error: the Ray head at {network.address} has ended: finished trials are kept, and the same command continues"
    assert sentence in output
    assert read_trials([home / "headless"]).frame.height >= 2
