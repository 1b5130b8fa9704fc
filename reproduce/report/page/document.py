"""Everything that a report says and shows, before it becomes HTML or Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reproduce.report.analysis import tables
from reproduce.report.analysis.claims import Verdict, verdicts
from reproduce.report.analysis.report_data import Collected
from reproduce.report.figures.registry import begin_drawing
from reproduce.report.figures.render_pool import Drawing
from reproduce.report.figures.spec import Picture
from reproduce.report.text import tables as layout
from reproduce.report.text.claims import Card, card, claims_layout, tally
from reproduce.report.text.findings import Check, findings, freeze_proof, headline, notices
from reproduce.report.text.folders import (
    folders_layout,
    side_by_side_layout,
    table_folders,
    table_side_by_side,
)
from reproduce.report.text.mcnemar import agreement_layout, prediction_differences
from reproduce.report.text.provenance import Fact, open_questions, origins


@dataclass(frozen=True)
class Content:
    """The parts of a report, in the order in which they are shown."""

    headline: str
    notices: list[str]
    findings: list[str]
    tally: str
    verdicts: list[Card]
    proof: list[Check]
    pictures: list[Picture]
    tables: list[layout.Table]
    origins: dict[str, list[Fact]]
    open_questions: list[tuple[str, str, tuple[str, ...]]]


def compose(found: Collected, out: Path, command: str | None) -> tuple[Content, Drawing]:
    """Compute everything; figures are written to ``out``/figures, and are there once the drawing is finished."""
    trials = found.trials
    drawing, pictures = begin_drawing(found, out / "figures")
    judged = verdicts(trials)
    shown = _tables(found, judged)
    content = Content(
        headline(found),
        notices(found),
        findings(found),
        tally(judged),
        [card(verdict) for verdict in judged],
        freeze_proof(found),
        pictures,
        shown,
        origins(trials, command),
        open_questions(trials),
    )
    return content, drawing


def _tables(found: Collected, judged: Sequence[Verdict]) -> list[layout.Table]:
    """The tables that have something to show."""
    trials, built = found.trials, [claims_layout(judged)]
    if found.ok:
        built += [
            layout.tasks_layout(tables.table_tasks(trials)),
            layout.accuracy_layout(tables.table_accuracy(trials)),
            layout.efficiency_layout(tables.table_efficiency(trials)),
            layout.predictions_layout(tables.table_predictions(trials)),
            layout.ranking_layout(tables.table_ranking(trials)),
        ]
        compared = prediction_differences(found)
        built += [agreement_layout(compared)] if compared is not None else []
    if found.runs["artifacts"].n_unique() > 1:
        built += [
            folders_layout(table_folders(found.runs)),
            side_by_side_layout(table_side_by_side(found.runs)),
        ]
    built.append(layout.problems_layout(tables.table_problems(trials, found.damaged, found.missing)))
    built.append(layout.trials_layout(tables.table_trials(trials)))
    return [table for table in built if table.frame.height]
