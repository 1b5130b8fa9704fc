"""An arm of another package, found by its entry point, goes through plan, run and report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reproduce.store.parquet import read_trials

pytestmark = pytest.mark.sweep

ROOT = Path(__file__).parents[3]
ARM = '''
"""EDGE: the layers nearest to both ends frozen."""

import math
from fractions import Fraction

from lfreeze.strategy import Kind


class Edge(Kind):
    """Freezes the outermost layers, alternating between input and output."""

    label = "EDGE"
    order = 45

    def select(self, n_layers: int, ratio: Fraction, seed: int) -> tuple[int, ...]:
        count = math.floor(ratio * n_layers)
        first = (count + 1) // 2
        return (*range(first), *range(n_layers - (count - first), n_layers))
'''
GRID = ("--tasks", "tiny-cb", "--strategies", "ALL,EDGE50", "--seeds", "42", "--set", "steps=8",
        "--set", "batch_size=4", "--set", "probe_steps=3", "--set", "max_train_examples=40")  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with the installed package, as ``pip install --target`` leaves it."""
    site = tmp_path / "site"
    info = site / "edge_arm-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "edge_arm.py").write_text(ARM, "utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edge-arm\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text("[lfreeze.kinds]\nedge = edge_arm:Edge\n", "utf-8")
    return site


def reproduce(site: Path, *arguments: str) -> str:
    """Run the command where the package is installed; Ray's workers inherit the path."""
    path = os.pathsep.join(filter(None, (str(site), str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "reproduce", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_an_arm_of_another_package_is_planned_run_and_reported(site: Path, tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    assert "EDGE50" in reproduce(site, "plan", *GRID)
    reproduce(site, "run", *GRID, "--artifacts", str(folder))
    table = read_trials([folder])
    assert not table.damaged
    rows = {row["strategy"]: row for row in table.frame.to_dicts()}
    assert {name: row["status"] for name, row in rows.items()} == {"ALL": "ok", "EDGE50": "ok"}
    edge = rows["EDGE50"]
    assert edge["kind"] == "EDGE"
    assert list(edge["frozen_layers"]) == [0, 1, 6, 7]
    assert edge["frozen_unchanged"]
    assert edge["trainable_parameters"] < rows["ALL"]["trainable_parameters"]
    reproduce(site, "report", str(folder))
    pages = sorted(folder.rglob("*.html"))
    assert pages
    assert any("EDGE50" in page.read_text("utf-8") for page in pages)
