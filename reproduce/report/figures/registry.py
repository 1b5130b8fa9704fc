"""All figures of the report, in their order, and how their files are made."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from reproduce.report.analysis.report_data import ReportData
from reproduce.report.figures import (
    appendix,
    effects,
    evaluations,
    loss,
    paper_captions,
    selection,
    tradeoffs,
)
from reproduce.report.figures.render_pool import RenderPool
from reproduce.report.figures.spec import RenderedFigure
from reproduce.report.formatting import plural
from reproduce.report.text.exports import write_csv

FIGURES = (
    *paper_captions.FIGURES, *appendix.FIGURES, paper_captions.SPEED, *effects.FIGURES, *tradeoffs.FIGURES, *selection.FIGURES,
    *evaluations.FIGURES, *loss.FIGURES,
)  # fmt: skip
_SUFFIXES = ("png", "svg", "pdf", "csv")
PARALLEL_FROM = 100  # trials; with fewer, starting worker processes takes longer than they save


def figure_files() -> list[str]:
    """The names of all files that a report's figures may have."""
    return [f"{spec.name}.{suffix}" for spec in FIGURES for suffix in _SUFFIXES]


def start_rendering(report_data: ReportData, folder: Path, pool: RenderPool) -> list[RenderedFigure]:
    """Hand the figures that have data to ``pool``.

    The figures' files exist once the pool is finished; their CSV files are written at once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rendered = []
    for spec in FIGURES:
        data = spec.compute(report_data)
        if not data["n"].sum():
            continue
        stem = folder / spec.name
        pool.add((spec.draw, data, stem))
        write_csv(data, stem.with_suffix(".csv"))
        caption, alt = spec.caption(report_data, data), _alt(spec.title, data)
        png, svg = stem.with_suffix(".png"), stem.with_suffix(".svg")
        rendered.append(RenderedFigure(spec.name, spec.title, caption, alt, png, svg))
    return rendered


def _alt(title: str, data: pl.DataFrame) -> str:
    count = plural(data["strategy"].n_unique(), "strategy")
    return f"{title}, for {count}. The numbers are in the tables below."
