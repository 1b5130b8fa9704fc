"""The claims ledger in words: how a verdict, its rule and its numbers are written."""

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

# How a quantity is written: factor, digits, unit.
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
    "selection": "time for choosing layers, of ALL's training time",
}
_MEANING = {
    SUPPORTED: "every interval lies inside the range",
    CONTRADICTED: "an interval lies wholly outside the range",
    INCONCLUSIVE: "the intervals do not decide",
}


@dataclass(frozen=True)
class ClaimLine:
    """One part of a claim as it is shown; ``n`` counts trials / experiments."""

    contrast: str
    value: str
    interval: str
    single: str
    n: str
    verdict: str


@dataclass(frozen=True)
class ClaimCard:
    """One claim as it is shown; ``outcome`` says what decided, ``strategies`` whose trials to show."""

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


def card(found: Verdict) -> ClaimCard:
    claim = found.claim
    return ClaimCard(
        claim.id,
        claim.section,
        claim.statement,
        found.verdict,
        _outcome(found),
        rule(claim),
        _NAMES[claim.quantity],
        _UNITS[claim.quantity][2],
        tuple(_line(claim, part) for part in found.parts),
        tuple(found.strategies),
    )


def tally(found: Sequence[Verdict]) -> str:
    """``Of 20 claims 3 are supported, 1 is contradicted and 16 are inconclusive.``"""
    names = [verdict.verdict for verdict in found]
    counts = {name: names.count(name) for name in (SUPPORTED, CONTRADICTED, INCONCLUSIVE)}
    texts = [f"{count} {'is' if count == 1 else 'are'} {name}" for name, count in counts.items()]
    return f"Of the paper's {plural(len(names), 'claim')}, {listed(texts)}."


def _outcome(found: Verdict) -> str:
    if not found.reasons:
        text = _MEANING[found.verdict]
        return f"{text[0].upper()}{text[1:]}."
    text = f"These trials cannot decide it: {'; '.join(found.reasons)}."
    if any(part.estimate for part in found.parts):
        text += f" By their numbers alone it would be {found.by_numbers}: {_MEANING[found.by_numbers]}."
    return text


def rule(claim: Claim) -> str:
    """The range in words."""
    bounds = [f"{BOUNDS[name].words} {shown(claim.quantity, bound)}" for name, bound in claim.range.items()]
    return f"{' and '.join(bounds)} {_UNITS[claim.quantity][2]}"


def _line(claim: Claim, part: ClaimPart) -> ClaimLine:
    name = label(claim.quantity, part.contrast)
    found, quantity = part.estimate, claim.quantity
    if found is None:
        return ClaimLine(name, NONE, "no trials to compare", NONE, "0", part.verdict)
    interval = "none: one seed" if found.low is None else _span(quantity, found.low, found.high)
    single = NONE if found.least is None else _span(quantity, found.least, found.most)
    n = f"{found.n:,} / {found.n_blocks:,}"
    return ClaimLine(name, shown(quantity, found.value), interval, single, n, part.verdict)


def _span(quantity: str, low: float | None, high: float | None) -> str:
    return f"{shown(quantity, low)} to {shown(quantity, high)}"


def shown(quantity: str, value: float | None) -> str:
    """A value in the quantity's unit, without it."""
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


def claims_layout(found: Sequence[Verdict]) -> Table:
    """Every part of every claim, in the quantity's own unit; n counts trials, n_blocks experiments."""
    rows, texts = [], []
    for verdict in found:
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
        "A claim is supported if the 95 % interval of each of its parts lies inside its range, contradicted "
        "if one lies wholly outside, else inconclusive; and inconclusive where the trials are no evidence "
        "for the paper, whatever their numbers. Intervals: seeds resampled within each experiment. n counts the trials "
        "behind a number / their experiments."
    )
    return Table("claims", "The paper's claims, part by part", note, frame, columns)
