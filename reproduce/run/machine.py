"""What a run asks of this machine: how many trials at once, and the memory of the largest."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from lfreeze.model_shape import ShapeError
from reproduce.plan.cost import Assumptions, TrialCost, plan_space
from reproduce.plan.lengths import KnownLengths
from reproduce.plan.search_space import SearchSpace
from reproduce.run.classes import Division, RunClass
from reproduce.run.placement import Node
from reproduce.run.preflight import machine_checks


def checks_of_machine(
    space: SearchSpace,
    division: Division,
    nodes: Sequence[Node],
    root: Path,
    *,
    inline: bool = False,
    max_concurrent: int | None = None,
    lengths: KnownLengths | None = None,
) -> dict[str, Callable[[], str]]:
    """By subject, the checks of this machine for a run, see ``machine_checks``.

    Args:
        division: the trials that start, and what they have of the GPUs of ``nodes``, which is this machine.
        inline: whether they run without Ray, one after another.
        lengths: as in ``plan_space``.
    """
    started = [factors for each in division.classes for factors in each.trials]
    at_once = [_at_once(space, each, nodes) for each in division.classes]
    workers = min(max(at_once, default=1), max_concurrent or len(started), max(len(started), 1))
    needed = _host_bytes(space, division, frozenset(started), lengths)
    return machine_checks(root, len(started), workers=None if inline else workers, trial_bytes=needed)


def _at_once(space: SearchSpace, each: RunClass, nodes: Sequence[Node]) -> int:
    """The largest number of a class's trials that Ray runs at once on one node."""
    share = max(group.share for group in each.groups)
    cpus = max((os.cpu_count() or 1) // space.cpu_threads, 1)
    if not share:
        return 1 if space.exclusive else cpus
    gpus = max(len(node.gpus) for node in nodes)
    return max(min(int(gpus / share + 1e-6) if share > 1 else gpus * int(1 / share + 1e-6), cpus), 1)


def _host_bytes(
    space: SearchSpace, division: Division, started: frozenset[object], lengths: KnownLengths | None
) -> int:
    """Main memory that the largest trial needs beside its libraries; 0 if that is not predicted."""
    on_gpu = any(group.share for each in division.classes for group in each.groups)

    def needed(trial: TrialCost) -> int:
        return trial.host_bytes + (0 if on_gpu else trial.static_bytes + trial.training_bytes)

    try:
        planned = plan_space(space, Assumptions(1, 1.0), lengths)
    except ShapeError:
        return 0
    return max((needed(trial) for trial in planned if trial.factors in started), default=0)
