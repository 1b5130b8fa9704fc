"""Which of the paper's claims the trials of a search space can decide, and why not the others."""

from __future__ import annotations

from collections.abc import Collection

from reproduce.plan.search_space import SearchSpace
from reproduce.plan.spec import Factors
from reproduce.report.analysis.ledger import AGAINST_ALL, RANKED, Claim, claims, evidence_for, paper
from reproduce.report.formatting import listed, plural
from reproduce.report.strategy_order import BASELINE


def undecidable(space: SearchSpace, left_out: Collection[Factors] = ()) -> dict[str, tuple[str, ...]]:
    """By claim, why the space's trials cannot be evidence on it, even if all of them succeed; empty if they can.

    Args:
        left_out: trials of the space that cannot run, since they do not fit the GPU.
    """
    lost = {(trial.model, trial.task, trial.strategy) for trial in left_out}
    return {
        claim.id: (*_obstacles(space, claim), *(_unfit(space, claim, lost) if lost else ()))
        for claim in claims()
    }


def _unfit(space: SearchSpace, claim: Claim, lost: Collection[tuple[str, str, str]]) -> list[str]:
    """Why the trials that fit the GPU cannot decide a claim that the whole space could."""
    kind = evidence_for(claim.quantity)
    tasks = [name for name in space.tasks if name in paper().tasks or not kind.paper_tasks]
    models = [name for name in space.models if name in (claim.models or paper().models)]
    every = bool(claim.models) or claim.each_model
    for part in claim.parts:
        named = claim.strategies if claim.quantity in RANKED else part
        compared = [*named, BASELINE] if claim.quantity in AGAINST_ALL else named
        short = [
            model
            for model in models
            if sum(all((model, task, name) not in lost for name in compared) for task in tasks)
            < kind.min_experiments_per_model
        ]
        if short and (every or len(models) - len(short) < kind.min_models):
            return [f"the GPU is too small for trials of {listed(short)} that it compares"]
    return []


def _obstacles(space: SearchSpace, claim: Claim) -> list[str]:
    kind, reasons = evidence_for(claim.quantity), []
    if kind.gpu and not space.gpu:
        reasons.append("it needs a GPU (gpu = true)")
    if kind.own_gpu and not space.exclusive:
        reasons.append("each trial needs a GPU to itself (exclusive = true)")
    if kind.pretrained and any(card.random for card in space.cards.values()):
        reasons.append("the models have random weights")
    for name, value in kind.values.items():
        # Of a grid, the report uses the paper's value.
        given = dict.fromkeys(getattr(recipe, name) for recipe in space.recipes.values())
        if value not in given:
            reasons.append(f"{name} must be {value}, not {listed([str(other) for other in given])}")
    if unnamed := [name for name in claim.models if name not in space.models]:
        reasons.append(f"it lacks {listed(unnamed)}")
    models = {name for name in space.models if name in paper().models}
    n_models = len(paper().models) if claim.each_model else 0 if claim.models else kind.min_models
    tasks = set(space.tasks) & set(paper().tasks) if kind.paper_tasks else set(space.tasks)
    for noun, count, least in (
        ("model", len(models), n_models),
        ("task", len(tasks), kind.min_experiments_per_model),
        ("seed", len(space.seeds), kind.min_seeds),
    ):
        if count < least:
            of_paper = noun == "model" or (noun == "task" and kind.paper_tasks)
            known = f"{count} of the paper's {noun}s" if of_paper else plural(count, noun)
            reasons.append(f"{known}, of {least} needed")
    if absent := [name for name in claim.strategies if name not in space.strategies]:
        reasons.append(f"it lacks {listed(absent)}")
    return reasons


def summary(space: SearchSpace, left_out: Collection[Factors] = ()) -> list[str]:
    """What ``reproduce plan`` says: the claims that the space can decide, then each obstacle and its claims.

    Args:
        left_out: trials of the space that cannot run, since they do not fit the GPU.
    """
    if not set(space.models) & set(paper().models):
        return [f"Can decide none of the paper's claims, which are about {listed(list(paper().models))}."]
    obstacles = undecidable(space, left_out)
    counts = []
    for noun, of_kind in (("claim", False), ("reading", True)):
        names = [claim.id for claim in claims() if claim.reading == of_kind]
        decided = [name for name in names if not obstacles[name]]
        counts.append(
            f"{len(decided)} of {plural(len(names), noun)}" + (f" ({', '.join(decided)})" if decided else "")
        )
    condition = "every trial that fits succeeds" if left_out else "every trial succeeds"
    lines = [f"Can decide {' and '.join(counts)}, if {condition}."]
    by_reasons: dict[tuple[str, ...], list[str]] = {}
    for name, reasons in obstacles.items():
        if reasons:
            by_reasons.setdefault(reasons, []).append(name)
    lines += [f"Not {', '.join(names)}: {'; '.join(reasons)}." for reasons, names in by_reasons.items()]
    return lines
