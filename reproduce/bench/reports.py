"""Time and memory of a report by the number of its trials."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

from reproduce.bench.made_up_trials import write_published, write_swept
from reproduce.bench.processes import resident_bytes, run_module
from reproduce.bench.spec import Benchmark, Row, alternating, ratio_row
from reproduce.bench.workbench import Workbench

_SIZES = (100, 1_000, 10_000, 100_000)
_QUICK_SIZES = (10, 100)
_SWEPT = 1_000  # up to so many trials have three files each, as a sweep writes them; more are in three files in all


def run(bench: Workbench) -> list[Row]:
    """Two rows, time and memory, for each number of trials over the smallest."""
    quick = bench.settings.quick
    sizes = _QUICK_SIZES if quick else _SIZES
    folders = {n: bench.scratch / f"{n}-trials" for n in sizes}
    for n, folder in folders.items():
        (write_swept if n <= _SWEPT else write_published)(folder, n)
    smallest, rows = sizes[0], list[Row]()
    for n in sizes[1:]:
        measured = alternating(
            1 if quick else bench.settings.pairs,
            partial(measure, folders[n]),
            partial(measure, folders[smallest]),
        )
        for place, (quantity, unit) in enumerate((("time", "seconds"), ("memory", "bytes"))):
            pairs = [(many[place], few[place]) for many, few in measured]
            parts = (f"{unit}_of_{n}", f"{unit}_of_{smallest}")
            rows.append(ratio_row(f"{n:,} trials over {smallest}", pairs, parts, series=quantity))
    for folder in folders.values():
        shutil.rmtree(folder)
    return rows


def measure(root: Path) -> tuple[float, float]:
    """Seconds of a report, and the peak of the resident bytes summed over its processes."""
    peak = 0

    def watch(pid: int) -> None:
        nonlocal peak
        peak = max(peak, resident_bytes(pid, with_children=True))

    arguments = ["report", str(root), "--out", str(root / "report")]
    seconds = run_module("reproduce", arguments, environment=os.environ, watch=watch)
    return seconds, float(peak)


BENCHMARK = Benchmark(
    "report",
    "Time and peak memory of a report of many trials over those of a report of a few, each by a process of its own.",
    "time or memory over that of the fewest trials",
    run,
    logarithmic=True,
)
