"""All figures of the report: which there are, their files, what is said of each."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from reproduce.report import appendix, effects, loss, paper_plots, selection, tradeoffs
from reproduce.report.collected import Collected
from reproduce.report.drawing import draw_jobs
from reproduce.report.exports import write_csv
from reproduce.report.plot import Picture, Plot
from reproduce.report.units import plural

PLOTS: tuple[Plot, ...] = (
    *paper_plots.PLOTS, *appendix.PLOTS, *effects.PLOTS, *tradeoffs.PLOTS, *selection.PLOTS, *loss.PLOTS,
)  # fmt: skip
_KINDS = ("png", "svg", "pdf", "csv")


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
    draw_jobs([(plot.draw, data, folder / plot.name) for plot, data in drawn])
    return [
        Picture(
            plot.name, plot.title, plot.caption(found, data), _alt(plot.title, data),
            folder / f"{plot.name}.png", folder / f"{plot.name}.svg",
        )
        for plot, data in drawn
    ]  # fmt: skip


def _alt(title: str, data: pl.DataFrame) -> str:
    count = plural(data["strategy"].n_unique(), "strategy")
    return f"{title}, for {count}. The numbers are in the tables below."
