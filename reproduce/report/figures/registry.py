"""All figures of the report: which there are, their files, what is said of each."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from reproduce.report.analysis.report_data import Collected
from reproduce.report.figures import appendix, effects, loss, selection, tradeoffs
from reproduce.report.figures import paper_captions as paper_plots
from reproduce.report.figures.render_pool import Drawing
from reproduce.report.figures.spec import Picture, Plot
from reproduce.report.formatting import plural
from reproduce.report.text.exports import write_csv

PLOTS: tuple[Plot, ...] = (
    *paper_plots.PLOTS, *appendix.PLOTS, *effects.PLOTS, *tradeoffs.PLOTS, *selection.PLOTS, *loss.PLOTS,
)  # fmt: skip
_KINDS = ("png", "svg", "pdf", "csv")
_MANY = 100  # trials from which further processes save time


def begin_drawing(found: Collected, folder: Path) -> tuple[Drawing, list[Picture]]:
    """Begin to draw the figures for which there is data; a figure of an earlier report does not stay behind.

    The pictures' files are there once the drawing is finished.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for plot in PLOTS:
        for kind in _KINDS:
            (folder / f"{plot.name}.{kind}").unlink(missing_ok=True)
    drawing = Drawing(apart=found.trials.height >= _MANY)
    pictures = []
    for plot in PLOTS:
        data = plot.compute(found)
        if not data["n"].sum():
            continue
        stem = folder / plot.name
        drawing.add((plot.draw, data, stem))
        write_csv(data, stem.with_suffix(".csv"))
        caption, alt = plot.caption(found, data), _alt(plot.title, data)
        pictures.append(
            Picture(plot.name, plot.title, caption, alt, stem.with_suffix(".png"), stem.with_suffix(".svg"))
        )
    return drawing, pictures


def _alt(title: str, data: pl.DataFrame) -> str:
    count = plural(data["strategy"].n_unique(), "strategy")
    return f"{title}, for {count}. The numbers are in the tables below."
