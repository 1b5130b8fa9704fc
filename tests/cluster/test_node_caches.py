"""Models of the hub on a cluster: each node downloads into its own cache, and then needs no hub."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lfreeze.models.catalog import MODELS
from tests.cluster.network import SUBNET, TOKEN, Network, environment_with, missing
from tests.cluster.test_cluster import check
from tests.reproduce.run.test_sweep import SMALL

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

READER = "hf_planted" + "8" * 24
HUB = (f"{SUBNET}.1", 8090)
SERVE = """
import sys, time
from pathlib import Path
from tests.support.hub_server import HubServer
with HubServer(tokens=[sys.argv[1]], host=sys.argv[2], port=int(sys.argv[3])) as hub:
    hub.add_model("org/gated", Path(sys.argv[4]), gated=True)
    print(hub.endpoint, flush=True)
    time.sleep(600)
"""


def settings(home: Path, token: str = READER) -> dict[str, str]:
    """A machine's own cache, and its way to the hub."""
    return {
        "HF_HOME": str(home),
        "HF_ENDPOINT": f"http://{HUB[0]}:{HUB[1]}",
        "HF_TOKEN": token,
        "HF_HUB_OFFLINE": "",
    }


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The caches of the driver and of the two workers."""
    return [tmp_path_factory.mktemp(name) for name in ("driver", "worker0", "worker1")]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, homes: list[Path]) -> Iterator[Network]:
    with Network(tmp_path_factory.mktemp("network"), 2, tmp_path_factory.mktemp("hidden")) as network:
        network.start_head()
        network.start_worker(network.workers[0], settings(homes[1]))
        network.start_worker(network.workers[1], settings(homes[2], "hf_of_someone_without_access"))
        network.wait_for_nodes(3)
        yield network


@pytest.fixture(scope="module")
def hub(network: Network) -> Iterator[subprocess.Popen[str]]:
    model = MODELS["tiny-gemma"].config_file.parent
    words = [sys.executable, "-c", SERVE, READER, HUB[0], str(HUB[1]), str(model)]
    with subprocess.Popen(
        network.head.command(*words), stdout=subprocess.PIPE, text=True, env=environment_with()
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("http://")
        yield server
        server.kill()


def reproduce(network: Network, home: Path, command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    axes = ("--models", "org/gated", "--tasks", "tiny-cb")
    grid = ("--strategies", "ALL,BOT50", "--seeds", "1,2", *SMALL) if command == "run" else ()
    return network.head.run(
        "reproduce", command, "--address", network.address, *axes, *grid, "--artifacts", str(folder),
        environment=settings(home), timeout=240,
    )  # fmt: skip


def test_every_nodes_cache_is_filled_and_then_no_hub_is_needed(
    network: Network, hub: subprocess.Popen[str], homes: list[Path], tmp_path: Path
) -> None:
    # The driver downloads for itself; a worker that has nothing is named before any trial starts.
    empty = reproduce(network, homes[0], "run", tmp_path / "a")
    assert empty.returncode == 2, empty.stdout + empty.stderr
    assert (
        "its cache has no model org/gated: `reproduce fetch` with the same --address downloads it"
        in empty.stderr
    )
    assert not list(tmp_path.glob("a/trials/**/*.parquet"))

    refused = reproduce(network, homes[0], "fetch", tmp_path / "a")
    assert refused.returncode == 2, refused.stdout + refused.stderr
    where = f"node {network.workers[1].address}: model org/gated: the model org/gated is gated"
    assert where in refused.stderr
    assert refused.stderr.strip().count("\n") == 0
    # With a token that has access, as the operator would start it again.
    network.workers[1].kill()
    network.wait_for_nodes(2)
    network.start_worker(network.workers[1], settings(homes[2]))
    network.wait_for_nodes(3)

    filled = reproduce(network, homes[0], "fetch", tmp_path / "a")
    assert filled.returncode == 0, filled.stdout + filled.stderr
    commits = set()
    for index, worker in enumerate(network.workers):
        assert f"node {worker.address}: org/gated, 0.00 GB" in filled.stdout
        (weights,) = homes[1 + index].rglob("snapshots/*/model.safetensors")
        commits.add(weights.parent.name)
        assert weights.read_bytes() == (MODELS["tiny-gemma"].config_file.parent / weights.name).read_bytes()
    assert len(commits) == 1
    assert commits.pop() in (tmp_path / "a" / "inputs.lock.toml").read_text()

    hub.kill()
    hub.wait(20)
    done = reproduce(network, homes[0], "run", tmp_path / "a")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = check(tmp_path / "a", 4)
    assert set(rows["model_id"]) == {"org/gated"}


def test_the_hubs_token_stays_in_its_environment(network: Network, tmp_path: Path) -> None:
    for machine in (network.head, *network.workers):
        found = machine.run("grep", "-rlaF", "-e", READER, "-e", TOKEN, "/tmp/ray", "--devices=skip")
        assert found.stdout == ""
