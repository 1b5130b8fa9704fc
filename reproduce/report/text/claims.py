"""The claims ledger as text: verdicts, their rules and their numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from reproduce.report.analysis.claims import (
    CONTRADICTED,
    EXCEEDED,
    INCONCLUSIVE,
    SUPPORTED,
    VERDICTS,
    ClaimPart,
    Verdict,
)
from reproduce.report.analysis.estimands import Estimate
from reproduce.report.analysis.examples import Contrast
from reproduce.report.analysis.ledger import BOUNDS, Claim
from reproduce.report.formatting import NONE, listed, number, plural
from reproduce.report.text.tables import Column, Table

# The format of a quantity: factor, digits, unit.
_UNITS = {
    "accuracy": (100, 1, "points"),
    "better": (100, 0, "% of experiments"),
    "not_worse": (100, 0, "% of experiments"),
    "deviation": (100, 2, "points"),
    "rank": (1, 2, "points of rank"),
    "lead": (1, 2, "points of rank"),
    "memory": (100, 1, "% of ALL's training memory"),
    "speed": (100, 1, "% of ALL's speed"),
    "start": (100, 1, "% of ALL's time"),
    "selection": (100, 2, "% of ALL's training time"),
}
_NAMES = {
    "accuracy": "difference in accuracy",
    "better": "experiments in which the accuracy is higher",
    "not_worse": "experiments in which the accuracy is not lower, within the margin",
    "deviation": "difference in standard deviation over seeds",
    "rank": "difference in ranking score",
    "lead": "lead in ranking score",
    "memory": "training memory saved",
    "speed": "training speed gained",
    "start": "time of the first 10 steps, layer selection included",
    "selection": "time for selecting layers",
}
_MEANING = {
    SUPPORTED: "every interval is inside the range",
    EXCEEDED: "no interval is below the range, and at least one is above it: more than the claim says",
    CONTRADICTED: "an interval is entirely outside the range, at the level for all parts together",
    INCONCLUSIVE: "the intervals do not decide the claim",
}
_MEANING_OF_MOST = {
    SUPPORTED: "more than half of the intervals are inside the range",
    CONTRADICTED: "more than half of the intervals are entirely outside the range",
}
_KINDS = {"accuracy": "accuracy and ranks", "memory": "memory", "speed": "speed"}


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
    range_name: str
    lines: tuple[ClaimLine, ...]
    strategies: tuple[str, ...]
    reading: bool


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
        "lowest to highest model" if claim.quantity == "memory" else "95 % interval",
        tuple(_line(claim, part) for part in verdict.parts),
        tuple(verdict.strategies),
        claim.reading,
    )


def tally(judged: Sequence[Verdict]) -> str:
    """``Of the paper's 31 claims, 3 are supported, … Of our 3 readings of its text, …``"""
    printed = [verdict.verdict for verdict in judged if not verdict.claim.reading]
    own = [verdict.verdict for verdict in judged if verdict.claim.reading]
    text = f"Of the paper's {plural(len(printed), 'claim')}, {_counts(printed)}."
    return text + (f" Of our {plural(len(own), 'reading')} of its text, {_counts(own)}." if own else "")


def _counts(names: Sequence[str]) -> str:
    counts = {name: names.count(name) for name in VERDICTS}
    return listed([f"{n} {'is' if n == 1 else 'are'} {name}" for name, n in counts.items() if n])


def evidence_notes(judged: Sequence[Verdict]) -> list[str]:
    """Why trials are not evidence, each reason once, with what lacks evidence for it; empty if no claim does."""
    lacking: dict[str, list[str]] = {}
    for kind, name in _KINDS.items():
        here = [verdict for verdict in judged if verdict.kind == kind]
        reasons = Counter(reason for verdict in here for reason in verdict.reasons)
        if not reasons:
            continue
        for reason, count in reasons.most_common():
            whole = count == len(here)
            lacking.setdefault(reason, []).append(name if whole else _claims(here, reason))
    return [f"Not evidence on {listed(names)}: {reason}." for reason, names in lacking.items()]


def _claims(judged: Sequence[Verdict], reason: str) -> str:
    names = [verdict.claim.id for verdict in judged if reason in verdict.reasons]
    return f"claim {names[0]}" if len(names) == 1 else f"claims {listed(names, most=20)}"


def _outcome(verdict: Verdict) -> str:
    meaning = _MEANING | (_MEANING_OF_MOST if verdict.claim.most else {})
    if not verdict.reasons:
        text = meaning[verdict.verdict]
        return f"{text[0].upper()}{text[1:]}."
    if not any(part.estimate for part in verdict.parts):
        return "No trials to compare."
    return f"By the numbers alone it would be {verdict.by_numbers}: {meaning[verdict.by_numbers]}."


def rule(claim: Claim) -> str:
    """The claim's range in the quantity's unit: ``20.0 to 30.0, margin 5.0``."""
    margin = f", margin {shown(claim.quantity, claim.margin)}" if claim.margin else ""
    bounds = [shown(claim.quantity, bound) for bound in claim.printed.values()]
    if len(bounds) > 1:
        return f"{' to '.join(dict.fromkeys(bounds))}{margin}"
    (name,) = claim.printed
    return f"{BOUNDS[name].words} {bounds[0]}{margin if BOUNDS[name].sign else ''}"


def _line(claim: Claim, part: ClaimPart) -> ClaimLine:
    name = label(claim.quantity, part.contrast, part.model) + (", highest model" if claim.highest else "")
    estimate, quantity = part.estimate, claim.quantity
    if estimate is None:
        return ClaimLine(name, NONE, "no trials to compare", NONE, "0", part.verdict)
    interval = _unknown(estimate) if estimate.low is None else _span(quantity, estimate.low, estimate.high)
    single = NONE if estimate.least is None else _span(quantity, estimate.least, estimate.most)
    n = f"{estimate.n:,} / {estimate.n_blocks:,}"
    return ClaimLine(name, shown(quantity, estimate.value), interval, single, n, part.verdict)


def _unknown(estimate: Estimate) -> str:
    return "none: an experiment with one seed" if estimate.n_seeds < 2 else "none: the spread is unknown"


def _span(quantity: str, low: float | None, high: float | None) -> str:
    return f"{shown(quantity, low)} to {shown(quantity, high)}"


def shown(quantity: str, value: float | None) -> str:
    """A value in the quantity's unit, without the unit's name."""
    scale, digits, _ = _UNITS[quantity]
    return number(value, digits, scale)


def label(quantity: str, contrast: Contrast, model: str = "") -> str:
    """``BOT25 − ALL``, or ``BOT75 − 2 BOT50 + BOT25``; with a model ``BOT25 − ALL on phi-2``."""
    if quantity == "lead":
        return f"the lowest of {', '.join(contrast)} − the best other"
    text = ""
    for name, factor in contrast.items():
        size = "" if abs(factor) == 1 else f"{abs(factor):g} "
        sign = " − " if factor < 0 else " + "
        text += (sign if text or factor < 0 else "") + size + name
    return text.strip() + (f" on {model}" if model else "")


_CLAIM_COLUMNS = {
    **dict.fromkeys(("claim", "section", "statement", "quantity", "contrast"), pl.String()),
    **dict.fromkeys(("value", "low", "high", "least", "most"), pl.Float64()),
    **dict.fromkeys(("n", "n_blocks", "n_seeds"), pl.Int64()),
    **dict.fromkeys(("rule", "by_numbers_part", "by_numbers", "verdict", "reasons"), pl.String()),
    "reading": pl.Boolean(),
}


def claims_layout(judged: Sequence[Verdict]) -> Table:
    """Every part of every claim, in the quantity's unit; n counts trials, n_blocks experiments."""
    rows, texts = [], []
    for verdict in judged:
        claim = verdict.claim
        for part in verdict.parts:
            names = ("value", "low", "high", "least", "most", "n", "n_blocks", "n_seeds")
            numbers = {name: getattr(part.estimate, name, None) for name in names}
            about = {name: getattr(claim, name) for name in ("section", "statement", "quantity", "reading")}
            about |= {"claim": claim.id, "contrast": label(claim.quantity, part.contrast, part.model)}
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
        Column("95 % interval, or models", lambda row: texts[row["index"]].interval),
        Column("must be", lambda row: row["rule"], numeric=False),
        Column("n", lambda row: texts[row["index"]].n),
    )
    note = (
        "A claim is supported if the 95 % interval of each of its parts is inside its range, contradicted if "
        "an interval is entirely outside it at the level for all parts together (Bonferroni), and exceeded if "
        "a saving is beyond it. It is inconclusive otherwise, or if the trials are not evidence about the "
        "paper's models, tasks and recipe. Intervals of accuracies allow for other seeds and other validation "
        "examples; for memory, which has no random error, they are the lowest and the highest model. n is the "
        "number of trials / experiments used."
    )
    return Table("claims", "The paper's claims, part by part", note, frame, columns)
