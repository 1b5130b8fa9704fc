"""An arm from an installed package, through plan, run and report; then its results without the package."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reproduce.store.parquet import read_trials
from tests.support.program import CODE, Program

pytestmark = pytest.mark.sweep

PROJECT = CODE / "tests" / "support" / "foreign_arm"
SPACE = (
    "embedded",
    *("--models", "tiny-gemma"),
    *("--tasks", "tiny-cb"),
    *("--strategies", "ALL,EDGE50"),
    *("--seeds", "42"),
    *("--set", "steps=8"),
)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the package is installed, as pip installs it."""
    # A copy, because pip may write next to a project's files.
    project = shutil.copytree(PROJECT, tmp_path_factory.mktemp("project") / "edge")
    target = tmp_path_factory.mktemp("site")
    offline = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", *offline)
    subprocess.run([*pip, "--target", str(target), str(project)], check=True, timeout=120)
    return target


@pytest.fixture(scope="module")
def reproduce(packages: Path) -> Iterator[Program]:
    """The command where the package is installed."""
    with Program(CODE, packages) as program:
        yield program


@pytest.fixture(scope="module")
def without() -> Iterator[Program]:
    """The command where the package is not installed."""
    with Program(CODE) as program:
        yield program


@pytest.fixture(scope="module")
def swept(reproduce: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two trials."""
    folder = tmp_path_factory.mktemp("foreign") / "artifacts"
    reproduce("run", *SPACE, "--max-concurrent", "1", "--no-report", "--artifacts", folder)
    return folder


def test_the_plan_names_the_arm(reproduce: Program) -> None:
    assert "EDGE50" in reproduce("plan", *SPACE)


def test_without_the_package_the_arm_is_unknown(without: Program) -> None:
    message = without("plan", *SPACE, expect=2)
    assert "EDGE50" in message
    assert "BOT<ratio>" in message


def test_its_trial_froze_the_layers_that_it_selects(swept: Path) -> None:
    table = read_trials([swept])
    assert not table.damaged
    rows = {row["strategy"]: row for row in table.frame.to_dicts()}
    assert {name: row["status"] for name, row in rows.items()} == {"ALL": "ok", "EDGE50": "ok"}
    edge, n_layers = rows["EDGE50"], rows["EDGE50"]["n_layers"]
    assert (edge["kind"], edge["ratio"]) == ("EDGE", 0.5)
    alternating = [layer for i in range(n_layers) for layer in (i, n_layers - 1 - i)]
    assert sorted(edge["frozen_layers"]) == sorted(alternating[: n_layers // 2])
    assert edge["frozen_unchanged"]
    assert edge["trainable_parameters"] < rows["ALL"]["trainable_parameters"]


def test_a_second_run_has_nothing_to_do(swept: Path, reproduce: Program) -> None:
    files = {path: path.stat().st_mtime_ns for path in (swept / "trials").rglob("*.parquet")}
    reproduce("run", *SPACE, "--no-report", "--artifacts", swept)
    assert files == {path: path.stat().st_mtime_ns for path in (swept / "trials").rglob("*.parquet")}


@pytest.mark.parametrize("program", ["reproduce", "without"])
def test_the_report_shows_the_arm(
    swept: Path, program: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A report is made from files alone, so it does not need the package that wrote them."""
    request.getfixturevalue(program)("report", swept, "--out", tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "EDGE50" in page


def test_the_status_does_not_need_the_package(swept: Path, reproduce: Program, without: Program) -> None:
    assert without("status", swept) == reproduce("status", swept)
