"""Watching a sweep: the dashboard in a browser, the metrics endpoint, Prometheus and Grafana's queries."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reproduce.run.telemetry import TAGS
from tests.cluster.network import TOKEN, Machine, Network, environment_with, missing
from tests.cluster.test_recipes import CLUSTER, DASHBOARD

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]
_GPU = re.compile(r"ray_node_(gpus|gram)_")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A cluster on which a sweep runs as long as the tests look."""
    home = tmp_path_factory.mktemp("watched")
    with Network(tmp_path_factory.mktemp("network"), 2, home) as network:
        network.start()
        command = network.head.command(
            "reproduce", "run", "--address", network.address, "--tasks", "tiny-cb", "--artifacts", str(home / "a"),
            "--set", "steps=200", "--seeds", "1,2,3,4,5,6,7,8,9",
        )  # fmt: skip
        with (home / "sweep.log").open("w") as log:
            sweep = subprocess.Popen(command, stdout=log, stderr=log, env=environment_with())
        network.wait(lambda: "ray_lfreeze_trial_loss{" in scrape(network.workers[0]), 120)
        yield network
        sweep.terminate()
        sweep.wait(30)


def scrape(machine: Machine) -> str:
    script = f"import urllib.request as u; print(u.urlopen('http://{machine.address}:8080/metrics').read().decode())"
    return machine.run("python", "-c", script).stdout


def series(text: str, name: str) -> list[dict[str, str]]:
    return [
        dict(re.findall(r'(\w+)="([^"]*)"', line))
        for line in text.splitlines()
        if line.startswith(f"ray_{name}{{")
    ]


def test_gauges_are_tagged_by_the_five_factors_and_end_with_the_trial(watched: Network) -> None:
    at_once = []
    for _ in range(8):
        for worker in watched.workers:
            found = series(scrape(worker), "lfreeze_trial_step")
            at_once.append(len(found))
            for labels in found:
                assert {tag: labels[tag] for tag in TAGS}["task"] == "tiny-cb"
                ratio = re.search(r"\d+$", labels["strategy"])
                assert bool(ratio) == bool(labels["ratio"])
        time.sleep(3)
    # A worker trains one at a time; those that ended are dropped soon.
    assert 1 <= max(at_once) <= 8
    states = {labels["state"] for labels in series(scrape(watched.head), "lfreeze_sweep_trials")}
    assert states == {"total", "done", "failed", "running", "skipped"}


def test_prometheus_finds_every_node_and_grafanas_queries_answer(watched: Network, tmp_path: Path) -> None:
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        pytest.skip("prometheus is not installed")
    settings = (CLUSTER / "monitoring" / "prometheus.yml").read_text()
    (tmp_path / "prometheus.yml").write_text(settings.replace("/ray/", "/tmp/ray/").replace("10s", "2s"))
    server = subprocess.Popen(
        watched.head.command(
            prometheus, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
            "--web.listen-address=127.0.0.1:9090", "--log.level=error",
        ),
        env=environment_with(),
    )  # fmt: skip

    def ask(path: str) -> Any:
        script = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:9090/api/v1/{path}').read().decode())"
        done = watched.head.run("python", "-c", script)
        return json.loads(done.stdout)["data"] if done.returncode == 0 else None

    def healthy() -> set[str]:
        found = ask("targets") or {"activeTargets": []}
        return {t["labels"]["instance"] for t in found["activeTargets"] if t["health"] == "up"}

    nodes = {f"{machine.address}:8080" for machine in (watched.head, *watched.workers)}
    try:
        watched.wait(lambda: nodes <= healthy(), 60)
        queries = [t["expr"] for p in json.loads(DASHBOARD.read_text())["panels"] for t in p["targets"]]
        empty = set(queries)
        deadline = time.monotonic() + 90
        while {query for query in empty if not _GPU.search(query)} and time.monotonic() < deadline:
            for query in list(empty):
                answer = ask("query?" + urllib.parse.urlencode({"query": query}))
                assert answer is not None, query
                if answer["result"]:
                    empty.discard(query)
            time.sleep(2)
        # No GPU is here to measure.
        assert {query for query in empty if not _GPU.search(query)} == set()
    finally:
        server.terminate()
        server.wait(20)


def test_the_dashboard_shows_the_workers_and_which_trial_runs(watched: Network, tmp_path: Path) -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium here")
    script = Path(__file__).with_name("browse.py")
    done = watched.head.run("python", str(script), chromium, str(tmp_path))
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert TOKEN not in done.stdout
    assert "token" in seen["refused"].lower()
    assert seen["actors"].count("lfreeze worker") >= 2
    assert "WarmTrial" in seen["actors"]
    assert re.search(r"tiny-gemma/tiny-cb/\S+/seed\d: begins", seen["logs"])
    for name in ("dashboard.png", "dashboard-logs.png"):
        assert (tmp_path / name).stat().st_size > 20_000
    if folder := os.environ.get("LFREEZE_CI_ARTIFACTS"):
        shutil.copy(tmp_path / "dashboard.png", folder)


def test_a_job_can_be_submitted(watched: Network, tmp_path: Path) -> None:
    done = watched.head.run(
        "ray", "job", "submit", "--address", "http://127.0.0.1:8265", "--", "reproduce", "--version"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reproduce, version" in done.stdout + done.stderr
    refused = watched.head.run(
        "ray", "job", "submit", "--address", "http://127.0.0.1:8265", "--", "reproduce", "--version",
        environment={"RAY_AUTH_MODE": "", "RAY_AUTH_TOKEN": "", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert refused.returncode != 0
