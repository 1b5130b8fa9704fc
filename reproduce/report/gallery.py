"""All figures of the report: drawn, in several processes where that pays, and written as files."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import polars as pl

from reproduce.report import paper_plots
from reproduce.report.collected import Collected
from reproduce.report.exports import write_csv
from reproduce.report.plot import Draw, Picture, Plot
from reproduce.report.style import save
from reproduce.report.units import plural

PLOTS: tuple[Plot, ...] = (*paper_plots.PLOTS,)
_KINDS = ("png", "svg", "pdf", "csv")
# Rows to draw from which further processes, each a second in starting, save time.
_MANY = 500


def draw_all(found: Collected, folder: Path) -> list[Picture]:
    """Draw the figures for which there is data; a figure of an earlier report does not stay behind."""
    folder.mkdir(parents=True, exist_ok=True)
    for plot in PLOTS:
        for kind in _KINDS:
            (folder / f"{plot.name}.{kind}").unlink(missing_ok=True)
    computed = [(plot, plot.compute(found)) for plot in PLOTS]
    drawn = [(plot, data) for plot, data in computed if data["n"].sum()]
    for plot, data in drawn:
        write_csv(data, folder / f"{plot.name}.csv")
    _draw([(plot.draw, data, folder / plot.name) for plot, data in drawn])
    return [
        Picture(
            plot.name, plot.title, plot.caption(found, data), _alt(plot.title, data),
            folder / f"{plot.name}.png", folder / f"{plot.name}.svg",
        )
        for plot, data in drawn
    ]  # fmt: skip


def _draw(jobs: list[tuple[Draw, pl.DataFrame, Path]]) -> None:
    workers = min(os.cpu_count() or 1, len(jobs))
    if workers < 2 or sum(data.height for _, data, _ in jobs) < _MANY:
        for job in jobs:
            _draw_one(*job)
        return
    # Polars' threads do not survive a fork.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        # The largest first, so that no process is left alone with it.
        waiting = [pool.submit(_draw_one, *job) for job in sorted(jobs, key=lambda job: -job[1].height)]
        for one in waiting:
            one.result()


def _draw_one(draw: Draw, data: pl.DataFrame, stem: Path) -> None:
    save(draw(data), stem)


def _alt(title: str, data: pl.DataFrame) -> str:
    count = plural(data["strategy"].n_unique(), "strategy")
    return f"{title}, for {count}. The numbers are in the tables below."
