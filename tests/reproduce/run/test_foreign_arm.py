"""An arm from an installed package, through plan, run and report; then its results without the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reproduce.store.parquet import read_trials

pytestmark = pytest.mark.sweep

REPOSITORY = Path(__file__).parents[3]
PROJECT = REPOSITORY / "tests" / "support" / "foreign_arm"
SPACE = (
    "embedded",
    *("--models", "tiny-gemma"),
    *("--tasks", "tiny-cb"),
    *("--strategies", "ALL,EDGE50"),
    *("--seeds", "42"),
    *("--set", "steps=8"),
)


def reproduce(*arguments: str, packages: Path | None, expect: int = 0) -> str:
    """The output of the command, run with the packages installed in the folder ``packages``."""
    folders = [str(REPOSITORY), *([str(packages)] if packages else [])]
    done = subprocess.run(
        [sys.executable, "-m", "reproduce", *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


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
def swept(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two trials and the report that follows them."""
    folder = tmp_path_factory.mktemp("foreign") / "artifacts"
    reproduce("run", *SPACE, "--max-concurrent", "1", "--artifacts", str(folder), packages=packages)
    return folder


def test_the_plan_names_the_arm(packages: Path) -> None:
    assert "EDGE50" in reproduce("plan", *SPACE, packages=packages)


def test_without_the_package_the_arm_is_unknown() -> None:
    message = reproduce("plan", *SPACE, packages=None, expect=2)
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


def test_a_second_run_has_nothing_to_do(swept: Path, packages: Path) -> None:
    files = {path: path.stat().st_mtime_ns for path in (swept / "trials").rglob("*.parquet")}
    reproduce("run", *SPACE, "--artifacts", str(swept), packages=packages)
    assert files == {path: path.stat().st_mtime_ns for path in (swept / "trials").rglob("*.parquet")}


@pytest.mark.parametrize("with_package", [True, False])
def test_the_report_shows_the_arm(swept: Path, packages: Path, tmp_path: Path, with_package: bool) -> None:
    """A report is made from files alone, so it does not need the package that wrote them."""
    reproduce("report", str(swept), "--out", str(tmp_path), packages=packages if with_package else None)
    page = (tmp_path / "report.html").read_text()
    assert "EDGE50" in page


def test_the_status_does_not_need_the_package(swept: Path, packages: Path) -> None:
    with_package = reproduce("status", str(swept), packages=packages)
    assert reproduce("status", str(swept), packages=None) == with_package
