"""The paper's main figures, 3 to 6: their specifications and captions."""

from __future__ import annotations

from functools import partial

import polars as pl

from reproduce.report.analysis.paper_figures import (
    figure_3_data,
    figure_4_data,
    figure_5_data,
    figure_6_data,
    other_speed_data,
    without_result,
    without_speed,
)
from reproduce.report.analysis.report_data import ReportData
from reproduce.report.figures.paper import figure_3, figure_4, figure_5, figure_6
from reproduce.report.figures.spec import FigureSpec, from_trials, n_range
from reproduce.report.formatting import listed
from reproduce.report.strategy_order import BASELINE


def _caption_3(report_data: ReportData, data: pl.DataFrame) -> str:
    return (
        f"Look for bars that reach the red line, the mean of {BASELINE} (blue and green: − and + 1 standard "
        "deviation), and for bars near the triangles, the majority class. Bars are means over seeds, whiskers are "
        f"sample standard deviations; {n_range(data['n'])} (seeds per bar). Hatches show the ratio: plain "
        "below 30 %, dots below 40 %, stripes below 60 %, crosses above."
    )


def _caption_4(report_data: ReportData, data: pl.DataFrame, *, of_figure_4: bool = True) -> str:
    absent = without_speed(report_data.trials, data, of_figure_4=of_figure_4)
    shared = (
        "" if data["exclusive"].all() else " Other trials used the same device during these measurements."
    )
    return (
        "Strategies at the top left are both accurate and fast. Time is that of 10 steps from the start, which for "
        "adaptive strategies includes the probe and the selection of layers. The filled part of a half-disc is "
        f"the share of layers that train. Median time over {n_range(data['n_speed'])} (seeds), mean accuracy "
        f"over {n_range(data['n'])}.{shared}"
        + (f" Not drawn, for lack of a comparable time: {listed(absent)}." if absent else "")
    )


def _caption_5(report_data: ReportData, data: pl.DataFrame) -> str:
    methods = sorted(set(report_data.trials["memory_method"].drop_nulls()))
    probe = ""
    if data["after_switch"].is_not_null().any():
        probe = (
            " Adaptive strategies train every layer until their switch: their bar is the peak of the whole run, "
            "which a GPU must hold; the thick line is the peak after the switch."
        )
    return (
        "The coloured part of a bar is training memory above the static model (grey); the percentage is its "
        f"change against {BASELINE}.{probe} Means over tasks of means over seeds; {n_range(data['n'])} "
        f"(trials per bar), {n_range(data['n_tasks'])} (tasks). Measured by: {listed(methods)}."
    )


def _caption_6(report_data: ReportData, data: pl.DataFrame) -> str:
    absent = without_result(report_data.trials)
    return (
        f"Strategies above {BASELINE} have a higher mean rank; with few experiments, this can be due to "
        "chance. Mean of reversed ranks over experiments (model × task), ties share the mean rank. Strategies "
        "below a line are not the paper's: they are placed among its own without moving them; "
        f"{n_range(data['n'])} (experiments per strategy)."
        + (f" Without any result: {listed(absent)}." if absent else "")
    )


# The same for the experiments that the paper's Figure 4 does not show.
SPEED = FigureSpec(
    "speed",
    "Speed against accuracy, other tasks",
    from_trials(other_speed_data),
    figure_4,
    partial(_caption_4, of_figure_4=False),
)
FIGURES = (
    FigureSpec("figure_3", "Accuracy by strategy", from_trials(figure_3_data), figure_3, _caption_3),
    FigureSpec("figure_4", "Speed against accuracy", from_trials(figure_4_data), figure_4, _caption_4),
    FigureSpec(
        "figure_5",
        "Static and training memory",
        from_trials(figure_5_data),
        figure_5,
        _caption_5,
    ),
    FigureSpec("figure_6", "Ranking score", from_trials(figure_6_data), figure_6, _caption_6),
)
