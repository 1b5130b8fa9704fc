"""The claims ledger: a verdict on each of the paper's claims, and why trials are not evidence.

The claims, their ranges and the conditions for evidence are data in
``artifacts/reference/paper_claims.toml``, which documents its format.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from reproduce.plan.search_space import SearchSpace, load_space
from reproduce.report.analysis.estimands import AGAINST_ALL, Contrast, ContrastEstimator, Estimate
from reproduce.report.formatting import listed, plural
from reproduce.report.strategy_order import BASELINE

SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"
# A wheel contains the file in the package, a checkout in ``artifacts``.
_FILES = (
    Path(__file__).parents[2] / "reference" / "paper_claims.toml",
    Path(__file__).parents[3] / "artifacts" / "reference" / "paper_claims.toml",
)


@dataclass(frozen=True)
class Bound:
    """One end of a claim's range; ``lower`` says which."""

    holds: Callable[[float, float], bool]
    lower: bool
    words: str


BOUNDS = {
    "at_least": Bound(lambda value, bound: value >= bound, True, "at least"),
    "above": Bound(lambda value, bound: value > bound, True, "above"),
    "at_most": Bound(lambda value, bound: value <= bound, False, "at most"),
    "below": Bound(lambda value, bound: value < bound, False, "below"),
}


@dataclass(frozen=True)
class Claim:
    """One claim of the ledger: each contrast in ``parts`` must be within ``range``.

    Attributes:
        range: bounds in the quantity's own unit, by their names in ``BOUNDS``.
    """

    id: str
    section: str
    statement: str
    quantity: str
    parts: tuple[Contrast, ...]
    range: Mapping[str, float]


@dataclass(frozen=True)
class ClaimPart:
    """One contrast of a claim, its estimate, and the verdict that the claim's range gives it."""

    contrast: Contrast
    estimate: Estimate | None
    verdict: str


@dataclass(frozen=True)
class Verdict:
    """The verdict that a report's trials give on one claim.

    Attributes:
        verdict: supported, contradicted or inconclusive.
        by_numbers: the verdict by the numbers alone, whether or not the trials are evidence.
        reasons: why the trials are not evidence; empty if they are.
    """

    claim: Claim
    verdict: str
    by_numbers: str
    reasons: tuple[str, ...]
    parts: tuple[ClaimPart, ...]

    @property
    def strategies(self) -> list[str]:
        """The strategies whose trials the verdict is based on; empty for all strategies."""
        if self.claim.quantity == "lead":
            return []
        named = [name for part in self.parts for name in part.contrast]
        return list(dict.fromkeys([*named, BASELINE] if self.claim.quantity in AGAINST_ALL else named))


@cache
def ledger() -> tuple[tuple[Claim, ...], Mapping[str, Mapping[str, Any]]]:
    """The paper's claims, and for each quantity the conditions for evidence."""
    book = _book()
    names = ("id", "section", "statement", "quantity")
    claims = [
        Claim(
            **{name: entry[name] for name in names},
            parts=tuple(entry["parts"]),
            range={name: entry[name] for name in BOUNDS if name in entry},
        )
        for entry in book["claim"]
    ]
    evidence = {quantity: kind for kind in book["evidence"].values() for quantity in kind["quantities"]}
    return tuple(claims), evidence


def headline_strategies() -> tuple[str, ...]:
    """The strategies that the report compares first."""
    book = _book()
    return tuple(book.get("headline") or book["headline_savings"])


@cache
def _book() -> dict[str, Any]:
    return tomllib.loads(next(path for path in _FILES if path.is_file()).read_text("utf-8"))


def verdicts(trials: pl.DataFrame) -> list[Verdict]:
    """A verdict on each claim, in the ledger's order."""
    claims, evidence = ledger()
    # Quantities with the same conditions share one estimator.
    by_kind = {id(kind): (kind, *_evidence(trials, kind)) for kind in evidence.values()}
    return [_judge(claim, *by_kind[id(evidence[claim.quantity])]) for claim in claims]


def _evidence(trials: pl.DataFrame, kind: Mapping[str, Any]) -> tuple[ContrastEstimator, str | None]:
    """The trials that are evidence; if there are none, all trials and the reason."""
    left = trials.filter(pl.col("status") == "ok")
    for keep, reason in _conditions(left, kind):
        left = left.filter(keep)
        if not left.height:
            return ContrastEstimator(trials), reason
    return ContrastEstimator(left), None


def _conditions(trials: pl.DataFrame, kind: Mapping[str, Any]) -> list[tuple[pl.Expr, str]]:
    """The conditions for evidence, each with the reason to state if no trial meets it."""
    paper = _paper()
    models, tasks = listed(list(paper.models)), listed(list(paper.tasks))
    frozen = pl.col("frozen_unchanged") & pl.col("every_trainable_got_gradient")
    conditions = [
        (pl.col("model").is_in(paper.models), f"no trial is of the paper's models ({models})"),
        (frozen.fill_null(False), "the freeze proof holds for no trial"),
    ]
    if kind["pretrained"]:
        conditions.append((pl.col("weights") == "pretrained", "the models have random weights"))
    if kind["paper_tasks"]:
        conditions.append((pl.col("task").is_in(paper.tasks), f"no trial is of the paper's tasks ({tasks})"))
    for name in kind["recipe"]:
        expected, column = getattr(paper.recipe, name), f"recipe_{name}"
        used = [str(value) for value in trials[column].drop_nulls().unique().sort()]
        reason = f"the paper's {name} is {expected}, that of the trials {listed(used)}"
        conditions.append((pl.col(column) == expected, reason))
    if kind["own_gpu"]:
        conditions.append((pl.col("device") == "cuda", "no trial ran on a GPU"))
        conditions.append((pl.col("exclusive").fill_null(False), "every trial shared its GPU"))
    return conditions


@cache
def _paper() -> SearchSpace:
    return load_space("paper")


def _judge(
    claim: Claim, kind: Mapping[str, Any], estimator: ContrastEstimator, no_evidence: str | None
) -> Verdict:
    estimates = [estimator.estimate(claim.quantity, contrast) for contrast in claim.parts]
    parts = tuple(
        ClaimPart(contrast, estimate, _decide(claim.range, estimate))
        for contrast, estimate in zip(claim.parts, estimates, strict=True)
    )
    reasons = [no_evidence] if no_evidence else _too_few(estimator.trials, kind, estimates)
    by_numbers = _combined([part.verdict for part in parts])
    return Verdict(claim, INCONCLUSIVE if reasons else by_numbers, by_numbers, tuple(reasons), parts)


def _decide(bounds: Mapping[str, float], estimate: Estimate | None) -> str:
    """Supported if the whole interval is in the range, contradicted if all of it is outside, else inconclusive."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return INCONCLUSIVE
    inside = True
    for name, bound in bounds.items():
        nearest, farthest = estimate.low, estimate.high
        if not BOUNDS[name].lower:
            nearest, farthest = farthest, nearest
        if not BOUNDS[name].holds(farthest, bound):
            return CONTRADICTED
        inside = inside and BOUNDS[name].holds(nearest, bound)
    return SUPPORTED if inside else INCONCLUSIVE


def _combined(parts: Sequence[str]) -> str:
    if CONTRADICTED in parts:
        return CONTRADICTED
    return SUPPORTED if set(parts) == {SUPPORTED} else INCONCLUSIVE


def _too_few(
    trials: pl.DataFrame, kind: Mapping[str, Any], estimates: Sequence[Estimate | None]
) -> list[str]:
    """What the evidence has too few of, with the number needed."""
    known = [estimate for estimate in estimates if estimate]
    if len(known) < len(estimates):
        return [f"no trials to compare for {len(estimates) - len(known)} of {plural(len(estimates), 'part')}"]
    counts = {
        "model": (trials["model"].n_unique(), kind["min_models"]),
        "experiment": (min(estimate.n_blocks for estimate in known), kind["min_experiments"]),
        "seed": (min(estimate.n_seeds for estimate in known), kind["min_seeds"]),
    }
    return [f"{plural(n, noun)}, of {least} needed" for noun, (n, least) in counts.items() if n < least]
