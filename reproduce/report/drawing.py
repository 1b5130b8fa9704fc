"""Figures drawn by several processes; ``python -m`` this module is one of them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from reproduce.report.plot import Draw
from reproduce.report.style import save

Job = tuple[Draw, pl.DataFrame, Path]  # how, what, and the files' path without its ending

# Rows to draw from which further processes, each a second in starting, save time.
_MANY = 500


def draw_jobs(jobs: Sequence[Job]) -> None:
    """Draw and write each figure.

    Processes are started by name, as no fork is safe beside Polars' threads, and as multiprocessing's
    spawn would run a caller's unguarded script again. What one of them could not draw is drawn here.
    """
    workers = min(os.cpu_count() or 1, len(jobs)) if sum(job[1].height for job in jobs) >= _MANY else 1
    # The largest figures first, each to the pile that has the least.
    piles: list[list[Job]] = [[] for _ in range(max(workers, 1))]
    for job in sorted(jobs, key=lambda job: -job[1].height):
        min(piles, key=lambda pile: sum(data.height for _, data, _ in pile)).append(job)
    command = [sys.executable, "-m", __name__]
    started = []
    for pile in piles[1:]:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        started.append((process, pile))
        assert process.stdin is not None
        with process.stdin as pipe:
            pickle.dump(pile, pipe)
    _draw(piles[0])
    for process, pile in started:
        if process.wait():
            _draw(pile)


def _draw(jobs: Sequence[Job]) -> None:
    for draw, data, stem in jobs:
        save(draw(data), stem)


if __name__ == "__main__":
    _draw(pickle.load(sys.stdin.buffer))
