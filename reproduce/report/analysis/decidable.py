"""Which of the paper's claims the trials of a search space can decide, and why not the others."""

from __future__ import annotations

from reproduce.plan.search_space import SearchSpace
from reproduce.report.analysis.ledger import Claim, claims, evidence_for, paper
from reproduce.report.formatting import listed, plural


def undecidable(space: SearchSpace) -> dict[str, tuple[str, ...]]:
    """By claim, why the space's trials cannot be evidence on it, even if all of them succeed; empty if they can."""
    return {claim.id: tuple(_obstacles(space, claim)) for claim in claims()}


def _obstacles(space: SearchSpace, claim: Claim) -> list[str]:
    kind, reasons = evidence_for(claim.quantity), []
    if kind.gpu and not space.gpu:
        reasons.append("it needs a GPU (gpu = true)")
    if kind.own_gpu and not space.exclusive:
        reasons.append("each trial needs a GPU to itself (exclusive = true)")
    if kind.pretrained and any(card.random for card in space.cards.values()):
        reasons.append("the models have random weights")
    for name, value in kind.values.items():
        if getattr(space.recipe, name) != value:
            reasons.append(f"{name} must be {value}, not {getattr(space.recipe, name)}")
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


def summary(space: SearchSpace) -> list[str]:
    """What ``reproduce plan`` says: the claims that the space can decide, then each obstacle and its claims."""
    if not set(space.models) & set(paper().models):
        return [f"Can decide none of the paper's claims, which are about {listed(list(paper().models))}."]
    obstacles = undecidable(space)
    counts = []
    for noun, of_kind in (("claim", False), ("reading", True)):
        names = [claim.id for claim in claims() if claim.reading == of_kind]
        decided = [name for name in names if not obstacles[name]]
        counts.append(
            f"{len(decided)} of {plural(len(names), noun)}" + (f" ({', '.join(decided)})" if decided else "")
        )
    lines = [f"Can decide {' and '.join(counts)}, if every trial succeeds."]
    by_reasons: dict[tuple[str, ...], list[str]] = {}
    for name, reasons in obstacles.items():
        if reasons:
            by_reasons.setdefault(reasons, []).append(name)
    lines += [f"Not {', '.join(names)}: {'; '.join(reasons)}." for reasons, names in by_reasons.items()]
    return lines
