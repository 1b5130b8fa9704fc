"""Verdicts on the paper's claims (``ledger``), and why trials are not evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from lfreeze.models.catalog import MODELS
from lfreeze.strategy import paper_strategies
from reproduce.report.analysis.estimands import ContrastEstimator, Estimate
from reproduce.report.analysis.examples import Contrast, Correctness
from reproduce.report.analysis.inference import LEVEL
from reproduce.report.analysis.ledger import (
    BOUNDS,
    RANKED,
    SAVINGS,
    Claim,
    Evidence,
    claims,
    evidence_for,
    paper,
)
from reproduce.report.formatting import listed, plural

SUPPORTED, EXCEEDED, CONTRADICTED, INCONCLUSIVE = "supported", "exceeded", "contradicted", "inconclusive"
VERDICTS = (SUPPORTED, EXCEEDED, CONTRADICTED, INCONCLUSIVE)

EvidenceEstimators = Mapping[str, tuple[ContrastEstimator, str | None]]


@dataclass(frozen=True)
class ClaimPart:
    """One contrast of a claim, on one model or on all (empty), its estimate, and the verdict of the claim's range."""

    contrast: Contrast
    model: str
    estimate: Estimate | None
    verdict: str


@dataclass(frozen=True)
class Verdict:
    """The verdict that a report's trials give on one claim.

    Attributes:
        verdict: supported, exceeded, contradicted or inconclusive.
        by_numbers: the verdict by the numbers alone, whether or not the trials are evidence.
        kind: the kind of evidence that the claim needs: accuracy, memory or speed.
        reasons: why the trials are not evidence; empty if they are.
    """

    claim: Claim
    verdict: str
    by_numbers: str
    kind: str
    reasons: tuple[str, ...]
    parts: tuple[ClaimPart, ...]

    @property
    def strategies(self) -> list[str]:
        """The strategies whose trials the verdict is based on; empty for all strategies."""
        return [] if self.claim.quantity in RANKED else list(self.claim.strategies)


def verdicts(estimators: EvidenceEstimators) -> list[Verdict]:
    """A verdict on each claim, in the ledger's order."""
    return [
        _judge(claim, kind, *estimators[kind.name])
        for claim in claims()
        for kind in [evidence_for(claim.quantity)]
    ]


def evidence_estimators(trials: pl.DataFrame, correctness: Correctness | None = None) -> EvidenceEstimators:
    """By kind of evidence, the trials that are evidence; if there are none, all of them, and the reason.

    Args:
        correctness: which trials predicted which examples correctly, for the intervals of accuracies.
    """
    kinds = {kind.name: kind for claim in claims() for kind in [evidence_for(claim.quantity)]}
    return {name: _evidence(trials, kind, correctness) for name, kind in kinds.items()}


def _evidence(
    trials: pl.DataFrame, kind: Evidence, correctness: Correctness | None
) -> tuple[ContrastEstimator, str | None]:
    """The trials that are evidence; if there are none, all trials and the reason.

    Accuracies of random weights mean nothing, whatever they are evidence of, and are left out.
    """
    left = trials.filter(pl.col("status") == "ok")
    for keep, reason in _conditions(left, kind):
        left = left.filter(keep)
        if not left.height:
            meaningful = trials.filter(pl.col("weights") == "pretrained") if kind.pretrained else trials
            return ContrastEstimator(meaningful, correctness), reason
    return ContrastEstimator(left, correctness), None


def _conditions(trials: pl.DataFrame, kind: Evidence) -> list[tuple[pl.Expr, str]]:
    """The conditions for evidence, each with the reason to state if no trial meets it."""
    models, tasks = listed(list(paper().models)), listed(list(paper().tasks))
    identifiers = {name: MODELS[name].model_id for name in paper().models}
    frozen = pl.col("frozen_unchanged") & pl.col("every_trainable_got_gradient")
    conditions = [
        (
            pl.col("model_id") == pl.col("model").replace_strict(identifiers, default=None),
            f"no trial is of the paper's models ({models})",
        ),
        (frozen.fill_null(False), "the freeze proof holds for no trial"),
    ]
    if kind.pretrained:
        conditions.append((pl.col("weights") == "pretrained", "the models have random weights"))
    if kind.paper_tasks:
        conditions.append(
            (pl.col("task").is_in(paper().tasks), f"no trial is of the paper's tasks ({tasks})")
        )
    if kind.gpu:
        conditions.append((pl.col("device") == "cuda", "no trial ran on a GPU"))
    if kind.own_gpu:
        conditions.append((pl.col("exclusive").fill_null(False), "every trial shared its GPU"))
    conditions += [_setting(trials, name, value) for name, value in kind.values.items()]
    # Memory and time depend on the attention, and a comparison needs the same on both sides.
    attention = pl.col("attention_implementation")
    usual = attention.drop_nulls().mode().sort().first().over("model")
    return [*conditions, (attention.eq_missing(usual), "no trial has its model's usual attention")]


def _setting(trials: pl.DataFrame, name: str, expected: Any) -> tuple[pl.Expr, str]:
    column = f"recipe_{name}"
    used = [str(value) for value in trials[column].drop_nulls().unique().sort()]
    return pl.col(column) == expected, f"{name} must be {expected}, that of the trials is {listed(used)}"


def _judge(claim: Claim, kind: Evidence, estimator: ContrastEstimator, no_evidence: str | None) -> Verdict:
    scopes = paper().models if claim.each_model else [""]
    pairs = [(contrast, model) for contrast in claim.parts for model in scopes]
    parts = []
    for contrast, model in pairs:
        models = (model,) if model else claim.models
        estimate = estimator.estimate(claim.quantity, contrast, models, highest=claim.highest)
        parts.append(ClaimPart(contrast, model, estimate, _decide(claim, estimate, len(pairs))))
    reasons = [no_evidence] if no_evidence else _too_few(claim, kind, parts)
    by_numbers = _combined([part.verdict for part in parts], claim.most)
    verdict = INCONCLUSIVE if reasons else by_numbers
    return Verdict(claim, verdict, by_numbers, kind.name, tuple(reasons), tuple(parts))


def _decide(claim: Claim, estimate: Estimate | None, n_parts: int) -> str:
    """Where a part's interval is: inside the range, beyond it, or outside at the level for all parts together."""
    inside = estimate.interval() if estimate else None
    outside = estimate.interval(1 - (1 - LEVEL) / n_parts) if estimate else None
    if inside is None or outside is None:
        return INCONCLUSIVE
    for name, bound in claim.range.items():
        nearest = outside[1] if BOUNDS[name].lower else outside[0]
        if not BOUNDS[name].holds(nearest, bound):
            return EXCEEDED if name == "at_most" and claim.quantity in SAVINGS else CONTRADICTED
    ends = {name: inside[0] if BOUNDS[name].lower else inside[1] for name in claim.range}
    holds = all(BOUNDS[name].holds(ends[name], bound) for name, bound in claim.range.items())
    return SUPPORTED if holds else INCONCLUSIVE


def _combined(parts: Sequence[str], most: bool) -> str:
    if most:
        return next((name for name in VERDICTS if parts.count(name) > len(parts) / 2), INCONCLUSIVE)
    if CONTRADICTED in parts:
        return CONTRADICTED
    if set(parts) <= {SUPPORTED, EXCEEDED}:
        return EXCEEDED if EXCEEDED in parts else SUPPORTED
    return INCONCLUSIVE


def _too_few(claim: Claim, kind: Evidence, parts: Sequence[ClaimPart]) -> list[str]:
    """What the evidence has too few of, with the number needed."""
    known = [part.estimate for part in parts if part.estimate]
    if len(known) < len(parts):
        if claim.quantity in RANKED:
            return [
                f"no experiment has a result for each of the paper's {len(paper_strategies())} strategies"
            ]
        return [f"no trials to compare for {len(parts) - len(known)} of {plural(len(parts), 'part')}"]
    n_models = 1 if claim.each_model else len(claim.models) or kind.min_models
    counts: Mapping[str, tuple[int, int]] = {
        "model": (min(len(estimate.models) for estimate in known), n_models),
        "experiment": (
            min(estimate.n_blocks for estimate in known),
            n_models * kind.min_experiments_per_model,
        ),
        "seed": (min(estimate.n_seeds for estimate in known), kind.min_seeds),
    }
    return [f"{plural(n, noun)}, of {least} needed" for noun, (n, least) in counts.items() if n < least]
