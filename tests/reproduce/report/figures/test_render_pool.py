"""Figures drawn by worker processes: the same files, one sentence for a failure, no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import psutil
import pytest
from matplotlib.figure import Figure

from reproduce.report.figures.render_pool import Job, RenderPool
from reproduce.report.figures.style import canvas
from reproduce.store.parquet import StoreError

DATA = pl.DataFrame({"n": [1, 2]})


def draw(data: pl.DataFrame) -> Figure:
    figure = canvas(2, 1)
    figure.text(0.1, 0.5, f"{data['n'].sum()}")
    return figure


def fail(data: pl.DataFrame) -> Figure:
    raise ValueError(f"no figure\nof {data.height} rows")


def crash(data: pl.DataFrame) -> Figure:
    os._exit(3)


def render(parallel: bool, *jobs: Job) -> None:
    with RenderPool(parallel) as pool:
        for job in jobs:
            pool.add(job)
        pool.finish()


def test_workers_write_the_same_files(tmp_path: Path) -> None:
    for parallel in (False, True):
        (tmp_path / str(parallel)).mkdir()
        render(parallel, *((draw, DATA, tmp_path / str(parallel) / name) for name in ("a", "b")))
    for name in ("a.png", "a.svg", "a.pdf", "b.png"):
        assert (tmp_path / "True" / name).read_bytes() == (tmp_path / "False" / name).read_bytes()
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("parallel", [False, True])
def test_a_figure_that_cannot_be_drawn_is_one_sentence(tmp_path: Path, parallel: bool) -> None:
    with pytest.raises(StoreError, match=r"figure bad cannot be drawn \(ValueError: no figure") as caught:
        render(parallel, (fail, DATA, tmp_path / "bad"))
    assert "\n" not in str(caught.value)
    assert multiprocessing.active_children() == []


def test_a_worker_that_ends_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="ended unexpectedly") as caught:
        render(True, (crash, DATA, tmp_path / "bad"), (draw, DATA, tmp_path / "good"))
    assert "\n" not in str(caught.value)
    assert multiprocessing.active_children() == []


def test_an_unwritable_file_stays_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        render(True, (draw, DATA, tmp_path / "absent" / "a"))


_SCRIPT = """
import sys
from pathlib import Path
from reproduce.report.figures.render_pool import RenderPool
from tests.reproduce.report.figures.test_render_pool import DATA, draw
with RenderPool(parallel=True) as pool:
    pool.add((draw, DATA, Path(sys.argv[1]) / "a"))
    pool.finish()
    print("drawn", flush=True)
    if len(sys.argv) > 2:
        import time
        time.sleep(60)
"""


def test_a_closed_standard_input_is_no_obstacle(tmp_path: Path) -> None:
    shell = 'exec "$0" -c "$1" "$2" <&-'
    done = subprocess.run(
        ["bash", "-c", shell, sys.executable, _SCRIPT, str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("drawn\n", 0), done.stderr
    assert (tmp_path / "a.png").is_file()


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path), "wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "drawn\n"
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert workers
    assert alive == []
