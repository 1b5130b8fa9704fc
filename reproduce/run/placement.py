"""On which nodes a cluster's trials run: on any, with one share of a GPU, or node by node where GPUs differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lfreeze.errors import InputError
from lfreeze.model_shape import ShapeError
from reproduce.plan.cost import GIB, Assumptions, plan_space
from reproduce.plan.search_space import SearchSpace
from reproduce.plan.spec import Factors
from reproduce.run.gpu_share import choose_share, share_required

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


def choose_node_groups(
    space: SearchSpace, requested: float | None, nodes: Sequence[Node]
) -> tuple[NodeGroup, ...]:
    """The node groups of a cluster, each with a share of a GPU that its trials fit into.

    Where all GPUs give the same share, that is one group: any node. Otherwise each node with GPUs is a group of
    its own, with the share that its GPUs give, and accepts the trials that fit into it. A space that measures
    speed uses the nodes of one kind only, since times on different GPUs are not comparable.

    Args:
        requested: a share for all trials, whatever the GPUs.

    Raises:
        InputError: there is no GPU where one is needed, or a trial fits on none.
    """
    equipped = _by_address(node for node in nodes if node.gpus)
    sizes = [size for node in equipped for _, size in node.gpus]
    alike = len({node.kind for node in equipped}) < 2
    if requested and equipped and all(len(node.gpus) < requested for node in equipped):
        most = max(len(node.gpus) for node in equipped)
        raise InputError(
            f"--gpus-per-trial {requested:g} is more GPUs than any node has: the maximum is {most}"
        )
    if alike or (requested is not None and not (requested and space.exclusive)):
        return (NodeGroup(choose_share(space, requested, sizes, "this cluster")),)
    every = frozenset(space.factors())
    shares = {node: _shares(space, node.gpu_bytes) for node in equipped}
    fits_all = [node for node in equipped if len(shares[node]) == len(every)]
    if not fits_all and requested is None:
        # Memory decides what fits, so the largest GPU fits the most trials: refused as if it were the only one.
        choose_share(space, None, [max(node.gpu_bytes for node in equipped)], "this cluster", "largest")
    used = _one_kind(fits_all or equipped) if space.exclusive else equipped
    groups = []
    for node in used:
        if requested or shares[node]:
            share = requested or max(shares[node].values())
            at_once = math.floor(1 / share) * len(node.gpus) if share <= 1 else len(node.gpus) // int(share)
            slots = min(int(node.cpus // space.recipe.cpu_threads), at_once)
            trials = None if requested or node in fits_all else frozenset(shares[node])
            groups.append(NodeGroup(share, node.address, slots, trials))
    if len(groups) == len(equipped) and len({(group.share, group.trials) for group in groups}) == 1:
        return (NodeGroup(groups[0].share),)
    return tuple(group for group in groups if group.slots)


def describe_node_groups(space: SearchSpace, nodes: Iterable[Node], groups: Sequence[NodeGroup]) -> list[str]:
    """How each node with GPUs is used, one line each; empty where all are used alike."""
    by_address = {group.address: group for group in groups}
    lines = []
    for node in (node for node in _by_address(n for n in nodes if n.gpus) if None not in by_address):
        gpus = [f"{n} × {name}, {size / GIB:.0f} GiB" for (name, size), n in Counter(node.gpus).items()]
        group, use = by_address.get(node.address), "not used"
        if group is not None:
            fit = "all" if group.trials is None else f"{len(group.trials):,} of {len(space.factors()):,}"
            use = f"{group.slots} trials at once, each with {group.share:g} of a GPU; {fit} trials fit"
        lines.append(f"node {node.name} ({'; '.join(gpus)}): {use}")
    return lines


def _by_address(nodes: Iterable[Node]) -> list[Node]:
    """Nodes at one address as one, since what Ray binds to an address may run on any of them."""
    merged: dict[str, Node] = {}
    for node in nodes:
        other = merged.get(node.address, Node(node.address, node.address, 0))
        merged[node.address] = Node(
            node.address, node.address, other.cpus + node.cpus, (*other.gpus, *node.gpus)
        )
    return list(merged.values())


def _shares(space: SearchSpace, gpu_bytes: int) -> Mapping[Factors, float]:
    """The trials that fit into a GPU's memory, with the part of the GPU that each has."""
    try:
        planned = plan_space(space, Assumptions(gpu_bytes, 1.0))
    except ShapeError as error:
        if space.exclusive:
            return dict.fromkeys(space.factors(), 1.0)
        raise share_required(error) from None
    shares = {trial.factors: trial.gpu_share for trial in planned if trial.gpu_share <= 1}
    return dict.fromkeys(shares, 1.0) if space.exclusive else shares


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
