"""The claims ledger as text: verdicts, their rules and their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from reproduce.report.analysis.claims import (
    BOUNDS,
    CONTRADICTED,
    INCONCLUSIVE,
    SUPPORTED,
    Claim,
    ClaimPart,
    Verdict,
)
from reproduce.report.analysis.estimands import Contrast
from reproduce.report.formatting import NONE, listed, number, plural
from reproduce.report.text.tables import Column, Table

# The format of a quantity: factor, digits, unit.
_UNITS = {
    "accuracy": (100, 1, "points"),
    "deviation": (100, 2, "points"),
    "rank": (1, 2, "points of rank"),
    "lead": (1, 2, "points of rank"),
    "memory": (100, 1, "%"),
    "speed": (100, 1, "%"),
    "selection": (100, 2, "%"),
}
_NAMES = {
    "accuracy": "difference in accuracy",
    "deviation": "difference in standard deviation over seeds",
    "rank": "difference in ranking score",
    "lead": "lead in ranking score",
    "memory": "training memory saved",
    "speed": "training speed gained",
    "selection": "time for selecting layers, relative to ALL's training time",
}
_MEANING = {
    SUPPORTED: "every interval is inside the range",
    CONTRADICTED: "an interval is entirely outside the range",
    INCONCLUSIVE: "the intervals do not decide the claim",
}


@dataclass(frozen=True)
class ClaimLine:
    """One part of a claim as shown; ``n`` counts trials / experiments."""

    contrast: str
    value: str
    interval: str
    single: str
    n: str
    verdict: str


@dataclass(frozen=True)
class ClaimCard:
    """One claim as shown: ``outcome`` explains the verdict, ``strategies`` are those whose trials are listed."""

    id: str
    section: str
    statement: str
    verdict: str
    outcome: str
    rule: str
    quantity: str
    unit: str
    lines: tuple[ClaimLine, ...]
    strategies: tuple[str, ...]
    reading: bool = False


def card(verdict: Verdict) -> ClaimCard:
    """The texts that the page shows for a verdict."""
    claim = verdict.claim
    return ClaimCard(
        claim.id,
        claim.section,
        claim.statement,
        verdict.verdict,
        _outcome(verdict),
        rule(claim),
        _NAMES[claim.quantity],
        _UNITS[claim.quantity][2],
        tuple(_line(claim, part) for part in verdict.parts),
        tuple(verdict.strategies),
        getattr(claim, "reading", False),
    )


def evidence_notes(judged: Sequence[Verdict]) -> list[str]:
    """Why the trials are no evidence, once for each reason, with the claims that it concerns."""
    concerned: dict[str, list[str]] = {}
    for verdict in judged:
        for reason in verdict.reasons:
            concerned.setdefault(reason, []).append(verdict.claim.id)
    return [
        f"{reason[0].upper()}{reason[1:]} (claims {', '.join(ids)})." for reason, ids in concerned.items()
    ]


def tally(judged: Sequence[Verdict]) -> str:
    """``Of 20 claims 3 are supported, 1 is contradicted and 16 are inconclusive.``"""
    names = [verdict.verdict for verdict in judged]
    counts = {name: names.count(name) for name in (SUPPORTED, CONTRADICTED, INCONCLUSIVE)}
    texts = [f"{count} {'is' if count == 1 else 'are'} {name}" for name, count in counts.items()]
    return f"Of the paper's {plural(len(names), 'claim')}, {listed(texts)}."


def _outcome(verdict: Verdict) -> str:
    if not verdict.reasons:
        text = _MEANING[verdict.verdict]
        return f"{text[0].upper()}{text[1:]}."
    if not any(part.estimate for part in verdict.parts):
        return "No trials to compare."
    return f"By the numbers alone it would be {verdict.by_numbers}: {_MEANING[verdict.by_numbers]}."


def rule(claim: Claim) -> str:
    """The claim's range as text."""
    bounds = [f"{BOUNDS[name].words} {shown(claim.quantity, bound)}" for name, bound in claim.range.items()]
    return f"{' and '.join(bounds)} {_UNITS[claim.quantity][2]}"


def _line(claim: Claim, part: ClaimPart) -> ClaimLine:
    name = label(claim.quantity, part.contrast)
    estimate, quantity = part.estimate, claim.quantity
    if estimate is None:
        return ClaimLine(name, NONE, "no trials to compare", NONE, "0", part.verdict)
    interval = "none: one seed" if estimate.low is None else _span(quantity, estimate.low, estimate.high)
    single = NONE if estimate.least is None else _span(quantity, estimate.least, estimate.most)
    n = f"{estimate.n:,} / {estimate.n_blocks:,}"
    return ClaimLine(name, shown(quantity, estimate.value), interval, single, n, part.verdict)


def _span(quantity: str, low: float | None, high: float | None) -> str:
    return f"{shown(quantity, low)} to {shown(quantity, high)}"


def shown(quantity: str, value: float | None) -> str:
    """A value in the quantity's unit, without the unit's name."""
    scale, digits, _ = _UNITS[quantity]
    return number(value, digits, scale)


def label(quantity: str, contrast: Contrast) -> str:
    """``BOT25 − ALL``, or ``BOT75 − 2 BOT50 + BOT25``."""
    if quantity == "lead":
        return f"the lowest of {', '.join(contrast)} − the best other"
    text = ""
    for name, factor in contrast.items():
        size = "" if abs(factor) == 1 else f"{abs(factor):g} "
        sign = " − " if factor < 0 else " + "
        text += (sign if text or factor < 0 else "") + size + name
    return text.strip()


_CLAIM_COLUMNS = {
    **dict.fromkeys(("claim", "section", "statement", "quantity", "contrast"), pl.String()),
    **dict.fromkeys(("value", "low", "high", "least", "most"), pl.Float64()),
    **dict.fromkeys(("n", "n_blocks", "n_seeds"), pl.Int64()),
    **dict.fromkeys(("rule", "by_numbers_part", "by_numbers", "verdict", "reasons"), pl.String()),
}


def claims_layout(judged: Sequence[Verdict]) -> Table:
    """Every part of every claim, in the quantity's unit; n counts trials, n_blocks experiments."""
    rows, texts = [], []
    for verdict in judged:
        claim = verdict.claim
        for part in verdict.parts:
            names = ("value", "low", "high", "least", "most", "n", "n_blocks", "n_seeds")
            numbers = {name: getattr(part.estimate, name, None) for name in names}
            about = {"claim": claim.id, "section": claim.section, "statement": claim.statement}
            about |= {"quantity": claim.quantity, "contrast": label(claim.quantity, part.contrast)}
            ends = {"rule": rule(claim), "by_numbers_part": part.verdict, "by_numbers": verdict.by_numbers}
            ends |= {"verdict": verdict.verdict, "reasons": "; ".join(verdict.reasons)}
            rows.append({**about, **numbers, **ends})
            texts.append(_line(claim, part))
    frame = pl.DataFrame(rows, schema=_CLAIM_COLUMNS).with_row_index()

    def of(name: str) -> Column:
        return Column(name, lambda row: getattr(texts[row["index"]], name), numeric=name != "contrast")

    columns = (
        Column("claim", lambda row: row["claim"], numeric=False),
        Column("statement", lambda row: row["statement"], numeric=False),
        Column("verdict", lambda row: row["verdict"], numeric=False),
        Column("by numbers alone", lambda row: row["by_numbers"], numeric=False),
        of("contrast"),
        of("value"),
        Column("unit", lambda row: _UNITS[row["quantity"]][2], numeric=False),
        Column("95 % interval", lambda row: texts[row["index"]].interval),
        Column("must be", lambda row: row["rule"], numeric=False),
        Column("n trials / experiments", lambda row: texts[row["index"]].n),
    )
    note = (
        "A claim is supported if the 95 % interval of each of its parts is inside its range, contradicted if "
        "an interval is entirely outside, and inconclusive otherwise or if the trials are not evidence about "
        "the paper's models, tasks and recipe. Intervals resample the seeds within each experiment. n is the "
        "number of trials / experiments used."
    )
    return Table("claims", "The paper's claims, part by part", note, frame, columns)
