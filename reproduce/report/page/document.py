"""The content of a report, before it is rendered as HTML or Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from reproduce.report.analysis.claims import Verdict, evidence_estimators, verdicts
from reproduce.report.analysis.grid import grid_comparisons, tuned_accuracy
from reproduce.report.analysis.headline import AGAINST, comparisons
from reproduce.report.analysis.report_data import ReportData
from reproduce.report.analysis.tables import (
    table_accuracy,
    table_efficiency,
    table_predictions,
    table_problems,
    table_ranking,
    table_tasks,
    table_trials,
)
from reproduce.report.figures.registry import start_rendering
from reproduce.report.figures.render_pool import RenderPool
from reproduce.report.figures.spec import RenderedFigure
from reproduce.report.text.claims import ClaimCard, card, claims_layout, evidence_notes, tally
from reproduce.report.text.findings import FreezeCheck, findings, freeze_proof, headline, notices
from reproduce.report.text.folders import (
    folders_layout,
    side_by_side_layout,
    table_folders,
    table_side_by_side,
)
from reproduce.report.text.grid import comparisons_layout, tuned_layout
from reproduce.report.text.headline import headline_layout, sentence
from reproduce.report.text.mcnemar import agreement_layout, prediction_differences
from reproduce.report.text.provenance import Fact, open_questions, origins
from reproduce.report.text.suspicions import suspicions
from reproduce.report.text.tables import (
    Table,
    accuracy_layout,
    efficiency_layout,
    predictions_layout,
    problems_layout,
    ranking_layout,
    tasks_layout,
    trials_layout,
)


@dataclass(frozen=True)
class Content:
    """The parts of a report.

    Attributes:
        numbers: what the headline's strategies cost and gain; ``answers`` are the same as sentences.
        evidence: why the trials are no evidence about the paper's claims.
    """

    headline: str
    numbers: Table | None
    answers: list[str]
    notices: list[str]
    findings: list[str]
    tally: str
    evidence: list[str]
    verdicts: list[ClaimCard]
    proof: list[FreezeCheck]
    figures: list[RenderedFigure]
    tables: list[Table]
    origins: dict[str, list[Fact]]
    open_questions: list[tuple[str, str, tuple[str, ...]]]


def compose(report_data: ReportData, out: Path, command: str | None, pool: RenderPool) -> Content:
    """Compute everything; ``pool`` draws the figures into ``out``/figures."""
    trials = report_data.trials
    figures = start_rendering(report_data, out / "figures", pool)
    evidence = evidence_estimators(trials, report_data.correctness)
    judged = verdicts(evidence)
    tables = _tables(report_data, judged)
    compared = comparisons(trials, evidence)
    return Content(
        headline(report_data),
        headline_layout(compared) if compared else None,
        [sentence(comparison) for comparison in compared],
        [*suspicions(report_data), *notices(report_data)],
        findings(report_data),
        tally(judged),
        evidence_notes(judged),
        [card(verdict) for verdict in judged],
        freeze_proof(report_data),
        figures,
        tables,
        origins(report_data.every, command),
        open_questions(report_data.every),
    )


def _tables(report_data: ReportData, judged: Sequence[Verdict]) -> list[Table]:
    """The tables that have rows."""
    trials, built = report_data.trials, [claims_layout(judged)]
    if report_data.ok:
        built += [
            tasks_layout(table_tasks(trials)),
            accuracy_layout(table_accuracy(trials)),
            efficiency_layout(table_efficiency(trials)),
            predictions_layout(table_predictions(trials)),
            ranking_layout(table_ranking(trials)),
            *_grid_tables(report_data),
        ]
        compared = prediction_differences(report_data)
        built += [agreement_layout(compared)] if compared is not None else []
    if report_data.runs["artifacts"].n_unique() > 1:
        built += [
            folders_layout(table_folders(report_data.runs)),
            side_by_side_layout(table_side_by_side(report_data.runs)),
        ]
    every = report_data.every
    built.append(problems_layout(table_problems(every, report_data.damaged, report_data.missing)))
    built.append(trials_layout(table_trials(every)))
    return [table for table in built if table.frame.height]


def _grid_tables(report_data: ReportData) -> list[Table]:
    """Strategies at equal and at tuned values, if there are several and weights are trained."""
    grid, trials = report_data.grid, report_data.every.filter(pl.col("weights") == "pretrained")
    if grid is None or trials.is_empty():
        return []
    compared = grid_comparisons(trials, grid, lambda query: report_data.read("predictions", query), AGAINST)
    tables = [comparisons_layout(compared)] if compared else []
    return [*tables, tuned_layout(tuned_accuracy(trials, grid), grid)]
