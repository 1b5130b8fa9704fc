"""The numbers that answer the paper's question: what a strategy costs or gains against ALL and LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from reproduce.report.analysis.claims import EvidenceEstimators
from reproduce.report.analysis.estimands import Estimate
from reproduce.report.analysis.ledger import evidence_for, headline
from reproduce.report.strategy_order import BASELINE, strategies_in_order

QUANTITIES = ("accuracy", "memory", "speed")
STRATEGIES, AGAINST = headline()


@dataclass(frozen=True)
class Comparison:
    """One strategy against another.

    Attributes:
        estimates: for each of ``QUANTITIES`` the strategy's value minus the other's, more is better:
            accuracy as a fraction of 1; memory saved and speed gained as fractions of ALL's. None if no
            trials can be compared.
    """

    strategy: str
    against: str
    estimates: Mapping[str, Estimate | None]


def comparisons(trials: pl.DataFrame, evidence: EvidenceEstimators) -> list[Comparison]:
    """The headline's strategies against each of ``AGAINST``; those without any estimate are left out.

    As for the claims, the trials that are evidence count; of a quantity for which there are none, all trials
    (for accuracies those with trained weights). If the trials have none of the headline's
    strategies, the first three others take their place.
    """
    names = [name for name in strategies_in_order(trials["strategy"]) if name not in AGAINST]
    chosen = [name for name in names if name in STRATEGIES] or names[:3]
    estimators = {quantity: evidence[evidence_for(quantity).name][0] for quantity in QUANTITIES}
    rows = []
    for against in AGAINST:
        for name in chosen:
            estimates = {
                quantity: estimator.estimate(quantity, _contrast(quantity, name, against))
                for quantity, estimator in estimators.items()
            }
            if any(estimates.values()):
                rows.append(Comparison(name, against, estimates))
    return rows


def _contrast(quantity: str, strategy: str, against: str) -> dict[str, float]:
    # Memory and speed are relative to ALL already: ALL's own value is 0.
    relative = against == BASELINE and quantity != "accuracy"
    return {strategy: 1} if relative else {strategy: 1, against: -1}
