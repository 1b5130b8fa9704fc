"""The paper's main figures, 3 to 6: which numbers, drawn how, with which caption."""

from __future__ import annotations

import polars as pl

from reproduce.report.analysis import paper_figures as figure_data
from reproduce.report.analysis.report_data import Collected
from reproduce.report.figures import paper as figures
from reproduce.report.figures.spec import Plot, of_trials, runs
from reproduce.report.formatting import listed


def _caption_3(found: Collected, data: pl.DataFrame) -> str:
    return (
        "Look for bars that reach the solid line, the mean of ALL (dotted: ± 1 standard deviation), and "
        "for those that "
        "fall towards the dashed line, the majority class. Bars are means over seeds, whiskers sample "
        "standard "
        f"deviations; {runs(data['n'])} (seeds per bar). Hatches tell the ratio: plain below 30 %, dots "
        "below 40 %, stripes below 60 %, crosses above."
    )


def _caption_4(found: Collected, data: pl.DataFrame) -> str:
    absent = figure_data.figure_4_absent(found.trials)
    shared = (
        " The device was shared with other trials while these times were taken."
        if not data["exclusive"].all()
        else ""
    )
    return (
        "Up and to the left is better: more accurate, faster. A half-disc is filled to the share of "
        "parameters that "
        f"train. Median time over {runs(data['n_speed'])} (seeds), mean accuracy over "
        f"{runs(data['n'])}.{shared}"
        + (f" Without a comparable time, and not drawn: {listed(absent)}." if absent else "")
    )


def _caption_5(found: Collected, data: pl.DataFrame) -> str:
    methods = sorted(set(found.trials["memory_method"].drop_nulls()))
    probe = ""
    if data["probe_training"].is_not_null().any():
        probe = " Adaptive strategies train every layer until their switch: the thick line is that peak."
    return (
        "Look at the coloured part, training memory above the static model (grey), and the percentage over "
        "it, the "
        f"change against ALL.{probe} Mean over tasks of means over seeds; {runs(data['n'])} (trials per "
        "bar), "
        f"{runs(data['n_tasks'])} (tasks). Measured by: {listed(methods)}."
    )


def _caption_6(found: Collected, data: pl.DataFrame) -> str:
    absent = figure_data.without_result(found.trials)
    return (
        "Strategies above ALL ranked higher than it on average, which few experiments can make an accident. Mean of reversed ranks over "
        "experiments (model × "
        f"task), ties sharing theirs; {runs(data['n'])} (experiments per strategy)."
        + (f" Without any result: {listed(absent)}." if absent else "")
    )


PLOTS = (
    Plot(
        "figure_3", "Accuracy by strategy", of_trials(figure_data.figure_3_data), figures.figure_3, _caption_3
    ),
    Plot(
        "figure_4",
        "Speed against accuracy",
        of_trials(figure_data.figure_4_data),
        figures.figure_4,
        _caption_4,
    ),
    Plot(
        "figure_5",
        "Static and training memory",
        of_trials(figure_data.figure_5_data),
        figures.figure_5,
        _caption_5,
    ),
    Plot("figure_6", "Ranking score", of_trials(figure_data.figure_6_data), figures.figure_6, _caption_6),
)
