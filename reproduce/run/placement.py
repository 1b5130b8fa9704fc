"""On which nodes a cluster's trials run: on any, with one share of a GPU, or node by node where GPUs differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lfreeze.errors import InputError
from lfreeze.model_shape import ShapeError
from reproduce.plan.cost import GIB, Assumptions, plan_space
from reproduce.plan.gpu_classes import fits, per_gpu, share_of
from reproduce.plan.lengths import KnownLengths
from reproduce.plan.search_space import SearchSpace
from reproduce.plan.spec import Factors
from reproduce.run.gpu_share import share_required

# A GPU's model and its memory in bytes.
Gpu = tuple[str, int]


@dataclass(frozen=True)
class Node:
    """One node that can run trials.

    Attributes:
        name: how messages refer to it: its address, and its id too where several share one.
        cpus, gpus: what Ray offers there.
    """

    name: str
    address: str
    cpus: float
    gpus: tuple[Gpu, ...] = ()

    @property
    def gpu_bytes(self) -> int:
        """The memory of its smallest GPU, since Ray, not the trial, chooses among the GPUs of a node."""
        return min(size for _, size in self.gpus)

    @property
    def kind(self) -> frozenset[tuple[str, int]]:
        """Its models of GPUs, with memory in whole GiB: some of it is reserved, and not equally on each GPU."""
        return frozenset((name, round(size / GIB)) for name, size in self.gpus)


@dataclass(frozen=True)
class NodeGroup:
    """Nodes that run trials with the same share of a GPU: one node, or any.

    Attributes:
        share: the part of a GPU that each trial has; 0 for the CPU.
        address: the node that trials are bound to; None for any node.
        slots: how many trials run on that node at once.
        trials: those that fit into the share; None for all.
    """

    share: float = 0.0
    address: str | None = None
    slots: int = 0
    trials: frozenset[Factors] | None = None

    def accepts(self, factors: Factors) -> bool:
        """Whether the trial fits into the share."""
        return self.trials is None or factors in self.trials

    def resources(self, cpus: float) -> dict[str, float]:
        """What a trial requests from Ray, where every node has one unit of ``node:<its address>``."""
        requested = {"CPU": cpus, "GPU": self.share} if self.share else {"CPU": cpus}
        return requested if self.address is None else {**requested, f"node:{self.address}": 0.001}


@dataclass(frozen=True)
class Resources:
    """What each trial runs with and where, and how many may run at once (None: as many as fit)."""

    cpus: float = 1.0
    groups: tuple[NodeGroup, ...] = (NodeGroup(),)
    max_concurrent: int | None = None

    @property
    def bound(self) -> bool:
        """Whether trials are bound to nodes, since nodes differ."""
        return any(group.address is not None for group in self.groups)

    def concurrency(self, cluster: Mapping[str, float]) -> int:
        """How many trials run at once on a cluster with these total CPUs and GPUs.

        Raises:
            InputError: none.
        """
        cpus, gpus = cluster.get("CPU", 0), cluster.get("GPU", 0)
        fits = sum(group.slots for group in self.groups)
        share = self.groups[0].share
        if not self.bound:
            fits = int(cpus // self.cpus)
            fits = min(fits, int(gpus // share)) if share else fits
        if fits < 1:
            raise InputError(
                f"a trial needs {self.cpus:g} CPUs and {share:g} GPUs, but this cluster has {cpus:g} CPUs and "
                f"{gpus:g} GPUs: no trial can run"
            )
        return min(fits, self.max_concurrent or fits)


def alike(nodes: Sequence[Node]) -> bool:
    """Whether all nodes have the same GPUs."""
    return len({node.kind for node in nodes}) < 2


def choose_node_groups(
    space: SearchSpace,
    nodes: Sequence[Node],
    trials: Collection[Factors],
    share: float,
    shares: Callable[[int], Mapping[Factors, float]],
    *,
    requested: bool = False,
) -> tuple[NodeGroup, ...]:
    """The node groups for trials that run at the same time, each with a share of a GPU that its trials fit into.

    Where all GPUs are alike, that is one group: any node. Otherwise each node is a group of its own, with one
    share for all of its trials, and accepts the trials that fit into it. A space that measures speed uses the
    nodes of one kind only, since times on different GPUs are not comparable.

    Args:
        nodes: those with GPUs, one for each address.
        trials: each fits some node.
        share: the part of a GPU for each trial where the nodes are alike.
        shares: by a GPU's memory in bytes, the trials of the space that fit it, each with its part of it.
        requested: whether that share is for all trials, whatever the GPUs.
    """
    if alike(nodes) or (requested and not space.exclusive):
        return (NodeGroup(share),)
    own = {node: _of(trials, shares(node.gpu_bytes)) for node in nodes}
    fits_all = [node for node in nodes if len(own[node]) == len(trials)]
    used = _one_kind(fits_all or nodes) if space.exclusive else nodes
    groups = []
    for node in used:
        if requested or own[node]:
            part = share if requested else max(own[node].values())
            at_once = math.floor(1 / part) * len(node.gpus) if part <= 1 else len(node.gpus) // int(part)
            slots = min(int(node.cpus // space.cpu_threads), at_once)
            accepted = None if requested or node in fits_all else frozenset(own[node])
            groups.append(NodeGroup(part, node.address, slots, accepted))
    if len(groups) == len(nodes) and len({(group.share, group.trials) for group in groups}) == 1:
        return (NodeGroup(groups[0].share),)
    return tuple(group for group in groups if group.slots)


def describe_node_groups(nodes: Sequence[Node], groups: Sequence[NodeGroup], trials: int) -> list[str]:
    """How each node is used for this many trials, one line each; empty where all are used alike."""
    by_address = {group.address: group for group in groups}
    lines = []
    for node in (node for node in nodes if None not in by_address):
        gpus = [f"{n} × {name}, {size / GIB:.0f} GiB" for (name, size), n in Counter(node.gpus).items()]
        group, use = by_address.get(node.address), "not used"
        if group is not None:
            fit = "all" if group.trials is None else f"{len(group.trials):,} of {trials:,}"
            use = f"{group.slots} trials at once, each with {group.share:g} of a GPU; {fit} trials fit"
        lines.append(f"node {node.name} ({'; '.join(gpus)}): {use}")
    return lines


def with_gpus(nodes: Iterable[Node]) -> list[Node]:
    """The nodes that have GPUs; those at one address as one, since what Ray binds to it may run on any of them."""
    merged: dict[str, Node] = {}
    for node in (node for node in nodes if node.gpus):
        other = merged.get(node.address, Node(node.address, node.address, 0))
        merged[node.address] = Node(
            node.address, node.address, other.cpus + node.cpus, (*other.gpus, *node.gpus)
        )
    return list(merged.values())


def shares_on(
    space: SearchSpace, gpu_bytes: int, lengths: KnownLengths | None = None
) -> Mapping[Factors, float]:
    """The trials that fit into a GPU's memory, with the part of the GPU that each has.

    Args:
        lengths: as in ``plan_space``.

    Raises:
        InputError: a model's memory has no closed form, and the trials do not have whole GPUs.
    """
    try:
        planned = plan_space(space, Assumptions(gpu_bytes, 1.0), lengths)
    except ShapeError as error:
        if space.exclusive:
            return dict.fromkeys(space.factors(), 1.0)
        raise share_required(error) from None
    return {
        trial.factors: 1.0 if space.exclusive else share_of(per_gpu(trial.gpu_share))
        for trial in planned
        if fits(trial)
    }


def _of(trials: Collection[Factors], shares: Mapping[Factors, float]) -> dict[Factors, float]:
    return {factors: shares[factors] for factors in trials if factors in shares}


def _one_kind(nodes: Sequence[Node]) -> list[Node]:
    """The nodes of the kind with the most GPUs in total; on a tie, of the one with the largest GPUs.

    A node whose own GPUs differ is used only if all nodes are such.
    """
    counts = Counter({node.kind: 0 for node in nodes if len(node.kind) == 1} or {n.kind: 0 for n in nodes})
    for node in nodes:
        if node.kind in counts:
            counts[node.kind] += len(node.gpus)
    chosen = max(counts, key=lambda kind: (counts[kind], min(size for _, size in kind)))
    return [node for node in nodes if node.kind == chosen]
