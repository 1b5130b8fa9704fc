"""A run's trials in classes by their share of a GPU, and the trials that are too large for the GPUs at hand."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from lfreeze.errors import InputError
from lfreeze.model_shape import ShapeError
from reproduce.plan.cost import GIB, Assumptions, TrialCost, plan_space
from reproduce.plan.gpu_classes import fits, gpu_classes, words_of
from reproduce.plan.lengths import KnownLengths
from reproduce.plan.search_space import SearchSpace
from reproduce.plan.spec import Factors
from reproduce.run.gpu_share import require_gpus, share_required
from reproduce.run.gpus import usable_gpus
from reproduce.run.placement import (
    Node,
    NodeGroup,
    alike,
    choose_node_groups,
    describe_node_groups,
    shares_on,
    with_gpus,
)

_ADVICE = (
    "fewer models or strategies, --set micro_batch_size=8, --set precision=bf16, a smaller batch_size, or other "
    "GPUs with CUDA_VISIBLE_DEVICES"
)


@dataclass(frozen=True)
class RunClass:
    """Trials that run at the same time, and where.

    Attributes:
        share: what each has of a GPU, in words; empty on the CPU.
    """

    trials: frozenset[Factors]
    groups: tuple[NodeGroup, ...]
    share: str = ""


@dataclass(frozen=True)
class Division:
    """The trials of a run that start, in classes that run one after another, and those that do not.

    Attributes:
        too_large: by trial, what it needs and what there is.
        lines: what to say of them: the classes with GPUs, how each node is used where nodes differ, and how many
            trials do not start.
    """

    classes: tuple[RunClass, ...]
    too_large: Mapping[Factors, str]
    lines: tuple[str, ...] = ()


def this_machine(*, one_gpu: bool = False) -> list[Node]:
    """This machine as the only node, with the GPUs that torch can use.

    Args:
        one_gpu: with the first of them only, which a process uses by itself.
    """
    gpus = tuple((name, size) for name, size, _ in usable_gpus()[: 1 if one_gpu else None])
    return [Node("this machine", "this machine", 0, gpus)]


def divide(
    space: SearchSpace,
    nodes: Sequence[Node],
    requested: float | None,
    wanted: Collection[Factors],
    where: str,
    *,
    what_fits: bool = False,
    alone: bool = False,
    lengths: KnownLengths | None = None,
) -> Division:
    """Divide trials into classes by the share of a GPU that each is predicted to need, the largest share first.

    Where GPUs differ, the share is that of the largest: each trial of a class fits there. With a requested share, on
    the CPU and in a space that measures speed, there is one class.

    Args:
        requested: a share for all trials, whatever they need.
        wanted: the trials that have no result yet.
        where: for messages, what has the nodes' GPUs.
        what_fits: whether trials that are too large are left out, instead of refused.
        alone: whether trials run one at a time, so that each has a whole GPU unless a share is requested; so have
            those of a space that measures speed.
        lengths: as in ``plan_space``.

    Raises:
        InputError: there is no GPU where one is needed; a trial is too large, or, with ``what_fits``, every trial
            of the space; a model's memory has no closed form, and no share is requested.
    """
    nodes, all_wanted, alone = with_gpus(nodes), frozenset(wanted), alone or space.exclusive
    require_gpus(space, requested, [len(node.gpus) for node in nodes], where)
    if not nodes or requested == 0:
        return Division((RunClass(all_wanted, (NodeGroup(),)),), {})
    gpu = _decisive_gpu(nodes, requested)
    planned = _plan(space, gpu, requested, what_fits, lengths, alone)
    too_large: dict[Factors, str] = {}
    classes = [(requested or 1.0, all_wanted)]
    if planned is not None:
        _require_fit(space, planned, all_wanted, gpu, where, what_fits)
        left = [trial for trial in planned if trial.factors in all_wanted]
        too_large = {trial.factors: gpu.too_small_for(trial) for trial in left if not fits(trial)}
        classes = (
            [(requested, all_wanted - too_large.keys())]
            if requested
            else [(each.share, each.factors) for each in gpu_classes(left, exclusive=alone)]
        )
    shares = cache(lambda size: shares_on(space, size, lengths))
    chosen = tuple(
        RunClass(
            trials,
            choose_node_groups(space, nodes, trials, share, shares, requested=requested is not None),
            words_of(share),
        )
        for share, trials in classes
        if trials
    )
    return Division(chosen, too_large, tuple(_described(chosen, nodes, len(too_large))))


def _described(classes: Sequence[RunClass], nodes: Sequence[Node], skipped: int) -> list[str]:
    shown = ", ".join(f"{each.share} ({len(each.trials):,} trials)" for each in classes)
    which = "a GPU" if alike(nodes) else "the largest GPU"
    order = ", one class after another" if len(classes) > 1 else ""
    lines = [f"Share of {which}{order}: {shown}"] if shown else []
    for each in classes:
        used = describe_node_groups(nodes, each.groups, len(each.trials))
        lines += [f"share {each.share}: {line}" for line in used] if len(classes) > 1 else used
    if skipped:
        lines.append(
            f"trials that do not fit the GPUs and are skipped: {skipped:,}; `reproduce status` lists the reasons"
        )
    return lines


@dataclass(frozen=True)
class _Gpu:
    """The GPU that decides what fits: its memory, and what of it a trial can use.

    Attributes:
        name: which of the GPUs it is.
    """

    memory: int
    usable: int
    name: str

    def too_small_for(self, trial: TrialCost) -> str:
        part = "" if self.usable == self.memory else f"{self.usable / self.memory:g} of "
        # A share above 1 is the needed part of the usable memory.
        needed = trial.gpu_share * self.usable / GIB
        return f"needs {needed:.1f} GiB, {part}the {self.name} GPU has {self.usable / GIB:.1f} GiB"


def _decisive_gpu(nodes: Sequence[Node], requested: float | None) -> _Gpu:
    """The smallest GPU of nodes that are alike, since any may be used; otherwise the best node's smallest."""
    sizes = [size for node in nodes for _, size in node.gpus]
    memory = min(sizes) if alike(nodes) else max(node.gpu_bytes for node in nodes)
    name = "largest" if round(memory / GIB) == round(max(sizes) / GIB) else "smallest"
    return _Gpu(memory, int(memory * min(requested or 1.0, 1.0)), name)


def _plan(
    space: SearchSpace,
    gpu: _Gpu,
    requested: float | None,
    what_fits: bool,
    lengths: KnownLengths | None,
    alone: bool,
) -> list[TrialCost] | None:
    """The predicted cost of all trials; None where none is needed, or there is none and each has a whole GPU."""
    if requested is not None and not what_fits:
        return None
    try:
        return plan_space(space, Assumptions(gpu.usable, 1.0), lengths)
    except ShapeError as error:
        if what_fits:
            raise InputError(f"{error}, so that --what-fits cannot tell which of its trials fit") from None
        if alone:
            return None
        raise share_required(error) from None


def _require_fit(
    space: SearchSpace,
    planned: Sequence[TrialCost],
    wanted: frozenset[Factors],
    gpu: _Gpu,
    where: str,
    what_fits: bool,
) -> None:
    if what_fits and not any(map(fits, planned)):
        smallest = min(planned, key=lambda trial: trial.gpu_share)
        raise InputError(
            f"--what-fits: no trial of {space.name} fits the GPUs of {where}: the smallest, {smallest.factors}, "
            f"{gpu.too_small_for(smallest)}"
        )
    left = [trial for trial in planned if trial.factors in wanted]
    largest = max((trial.gpu_share for trial in left), default=0.0)
    if what_fits or largest <= 1:
        return
    n_fit = sum(map(fits, left))
    remedy = (
        f"--what-fits runs the {n_fit:,} of {len(left):,} trials that fit; all need"
        if n_fit
        else f"none of {len(left):,} trials fits, choose"
    )
    raise InputError(
        f"the largest trial of {space.name} needs {largest:.1f} times the {gpu.memory / GIB:.0f} GiB of the {gpu.name} "
        f"GPU of {where}: {remedy} {_ADVICE}"
    )
