"""Everything that a report says and shows, before it becomes HTML or Markdown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from matplotlib.figure import Figure

from reproduce.report import figure_data, figures, layout, tables
from reproduce.report.collected import Collected
from reproduce.report.exports import write_csv
from reproduce.report.facts import Check, findings, freeze_proof, headline, notices
from reproduce.report.origins import Fact, open_questions, origins
from reproduce.report.style import save
from reproduce.report.units import listed, n_is, plural


@dataclass(frozen=True)
class Picture:
    """A figure that was written; ``png`` and ``svg`` are its files."""

    name: str
    title: str
    caption: str
    alt: str
    png: Path
    svg: Path


@dataclass(frozen=True)
class Content:
    """The parts of a report, in the order in which they are shown."""

    headline: str
    notices: list[str]
    findings: list[str]
    proof: list[Check]
    pictures: list[Picture]
    tables: list[layout.Table]
    origins: dict[str, list[Fact]]
    open_questions: list[tuple[str, str, tuple[str, ...]]]


def compose(found: Collected, out: Path, command: str | None) -> Content:
    """Compute everything; figures are written to ``out``/figures."""
    trials = found.trials
    return Content(
        headline(found),
        notices(found),
        findings(found),
        freeze_proof(found),
        _draw_all(trials, out / "figures"),
        _tables(found),
        origins(trials, command),
        open_questions(trials),
    )


def _tables(found: Collected) -> list[layout.Table]:
    """The tables that have something to show."""
    trials, built = found.trials, []
    if found.ok:
        built += [
            layout.tasks_layout(tables.table_tasks(trials)),
            layout.accuracy_layout(tables.table_accuracy(trials)),
            layout.efficiency_layout(tables.table_efficiency(trials)),
            layout.predictions_layout(tables.table_predictions(trials)),
            layout.ranking_layout(tables.table_ranking(trials)),
        ]
    built.append(layout.problems_layout(tables.table_problems(trials, found.damaged, found.missing)))
    built.append(layout.trials_layout(tables.table_trials(trials)))
    return [table for table in built if table.frame.height]


def _draw_all(trials: pl.DataFrame, folder: Path) -> list[Picture]:
    """Draw the figures for which there is data; a figure of an earlier report does not stay behind."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _FIGURES:
        for kind in ("png", "svg", "pdf", "csv"):
            (folder / f"{name}.{kind}").unlink(missing_ok=True)
    drawn = []
    for name, (title, compute, draw, caption) in _FIGURES.items():
        data = compute(trials)
        if data["n"].sum():
            png, svg = save(draw(data), folder / name)
            write_csv(data, folder / f"{name}.csv")
            drawn.append(Picture(name, title, caption(trials, data), _alt(title, data), png, svg))
    return drawn


def _alt(title: str, data: pl.DataFrame) -> str:
    count = plural(data["strategy"].n_unique(), "strategy")
    return f"{title}, for {count}. The numbers are in the tables below."


def _runs(counts: pl.Series) -> str:
    """``n = 3`` or ``n = 2 to 5``."""
    low, high = min(counts), max(counts)
    return n_is(low) if low == high else f"{n_is(low)} to {high}"


def _caption_3(trials: pl.DataFrame, data: pl.DataFrame) -> str:
    return (
        "Look for bars that reach the solid line, the mean of ALL (dotted: ± 1 standard deviation), and "
        "for those that "
        "fall towards the dashed line, the majority class. Bars are means over seeds, whiskers sample "
        "standard "
        f"deviations; {_runs(data['n'])} (seeds per bar). Hatches tell the ratio: plain below 30 %, dots "
        "below 40 %, stripes below 60 %, crosses above."
    )


def _caption_4(trials: pl.DataFrame, data: pl.DataFrame) -> str:
    absent = figure_data.figure_4_absent(trials)
    shared = (
        " The device was shared with other trials while these times were taken."
        if not data["exclusive"].all()
        else ""
    )
    return (
        "Up and to the left is better: more accurate, faster. A half-disc is filled to the share of "
        "parameters that "
        f"train. Median time over {_runs(data['n_speed'])} (seeds), mean accuracy over "
        f"{_runs(data['n'])}.{shared}"
        + (f" Without a comparable time, and not drawn: {listed(absent)}." if absent else "")
    )


def _caption_5(trials: pl.DataFrame, data: pl.DataFrame) -> str:
    methods = sorted(set(trials["memory_method"].drop_nulls()))
    probe = ""
    if data["probe_training"].is_not_null().any():
        probe = " Adaptive strategies train every layer until their switch: the thick line is that peak."
    return (
        "Look at the coloured part, training memory above the static model (grey), and the percentage over "
        "it, the "
        f"change against ALL.{probe} Mean over tasks of means over seeds; {_runs(data['n'])} (trials per "
        "bar), "
        f"{_runs(data['n_tasks'])} (tasks). Measured by: {listed(methods)}."
    )


def _caption_6(trials: pl.DataFrame, data: pl.DataFrame) -> str:
    absent = figure_data.without_result(trials)
    return (
        "Strategies above ALL ranked higher than it on average, which few experiments can make an accident. Mean of reversed ranks over "
        "experiments (model × "
        f"task), ties sharing theirs; {_runs(data['n'])} (experiments per strategy)."
        + (f" Without any result: {listed(absent)}." if absent else "")
    )


_FIGURES: dict[
    str,
    tuple[
        str,
        Callable[[pl.DataFrame], pl.DataFrame],
        Callable[[pl.DataFrame], Figure],
        Callable[[pl.DataFrame, pl.DataFrame], str],
    ],
] = {
    "figure_3": ("Accuracy by strategy", figure_data.figure_3_data, figures.figure_3, _caption_3),
    "figure_4": ("Speed against accuracy", figure_data.figure_4_data, figures.figure_4, _caption_4),
    "figure_5": ("Static and training memory", figure_data.figure_5_data, figures.figure_5, _caption_5),
    "figure_6": ("Ranking score", figure_data.figure_6_data, figures.figure_6, _caption_6),
}
