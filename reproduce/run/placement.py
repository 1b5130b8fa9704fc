"""Where a cluster's trials run: anywhere, with one share of a GPU, or node by node where GPUs differ."""

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
from reproduce.run.gpu_share import choose_share

# A GPU's model and its memory in bytes.
Gpu = tuple[str, int]


@dataclass(frozen=True)
class Node:
    """One node that can run trials.

    Attributes:
        name: what messages call it: its address, and its id too where several share one.
        cpus, gpus: what Ray gives out there.
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
        """Its models of GPUs; of one model, memories differ by some that is reserved."""
        return frozenset((name, round(size / GIB)) for name, size in self.gpus)


@dataclass(frozen=True)
class Place:
    """Somewhere trials run.

    Attributes:
        share: the part of a GPU that each is given; 0 for the CPU.
        address: the node that they are bound to; None where any node will do.
        slots: how many run on that node at once.
        trials: those that fit into the share; None for all.
    """

    share: float = 0.0
    address: str | None = None
    slots: int = 0
    trials: frozenset[Factors] | None = None

    def takes(self, factors: Factors) -> bool:
        return self.trials is None or factors in self.trials

    def resources(self, cpus: float) -> dict[str, float]:
        """What a trial asks Ray for; by Ray's convention every node has one of ``node:<its address>``."""
        asked = {"CPU": cpus, "GPU": self.share} if self.share else {"CPU": cpus}
        return asked if self.address is None else {**asked, f"node:{self.address}": 0.001}


@dataclass(frozen=True)
class Resources:
    """What each trial is given and where, and how many may run at once (None: as many as fit)."""

    cpus: float = 1.0
    places: tuple[Place, ...] = (Place(),)
    max_concurrent: int | None = None

    @property
    def bound(self) -> bool:
        """Whether trials are handed to nodes, since these differ."""
        return any(place.address is not None for place in self.places)

    def concurrency(self, cluster: Mapping[str, float]) -> int:
        """How many trials run at once on a cluster that has these CPUs and GPUs in all.

        Raises:
            InputError: none.
        """
        cpus, gpus = cluster.get("CPU", 0), cluster.get("GPU", 0)
        fits = sum(place.slots for place in self.places)
        share = self.places[0].share
        if not self.bound:
            fits = int(cpus // self.cpus)
            fits = min(fits, int(gpus // share)) if share else fits
        if fits < 1:
            raise InputError(
                f"a trial asks for {self.cpus:g} CPUs and {share:g} GPUs, but this cluster has {cpus:g} CPUs and "
                f"{gpus:g} GPUs: no trial can run"
            )
        return min(fits, self.max_concurrent or fits)


def choose_places(space: SearchSpace, asked: float | None, nodes: Sequence[Node]) -> tuple[Place, ...]:
    """Where a cluster's trials run, each with a part of a GPU that fits.

    Where all GPUs give the same share, that is one place: any node. Where they do not, each node with GPUs
    is a place of its own, with the share that its GPUs give, and takes the trials that fit into it. A space
    that measures speed takes the nodes of one kind alone, since times on different GPUs do not compare.

    Args:
        asked: a share for all, whatever the GPUs.

    Raises:
        InputError: there is no GPU where one is needed, or a trial fits on none.
    """
    equipped = _by_address(node for node in nodes if node.gpus)
    sizes = [size for node in equipped for _, size in node.gpus]
    alike = len({node.kind for node in equipped}) < 2
    if asked and equipped and all(len(node.gpus) < asked for node in equipped):
        most = max(len(node.gpus) for node in equipped)
        raise InputError(
            f"--gpus-per-trial {asked:g} asks for more GPUs than any node has: the most is {most}"
        )
    if alike or (asked is not None and not (asked and space.exclusive)):
        return (Place(choose_share(space, asked, sizes, "this cluster")),)
    every = frozenset(space.factors())
    shares = {node: _shares(space, node.gpu_bytes) for node in equipped}
    whole = [node for node in equipped if len(shares[node]) == len(every)]
    if not whole and asked is None:
        # Memory decides what fits, so that the largest GPU fits the most: refused as if it were alone.
        choose_share(space, None, [max(node.gpu_bytes for node in equipped)], "this cluster", "largest")
    used = _one_kind(whole or equipped) if space.exclusive else equipped
    places = []
    for node in used:
        if asked or shares[node]:
            share = asked or max(shares[node].values())
            at_once = math.floor(1 / share) * len(node.gpus) if share <= 1 else len(node.gpus) // int(share)
            slots = min(int(node.cpus // space.recipe.cpu_threads), at_once)
            cells = None if asked or node in whole else frozenset(shares[node])
            places.append(Place(share, node.address, slots, cells))
    if len(places) == len(equipped) and len({(place.share, place.trials) for place in places}) == 1:
        return (Place(places[0].share),)
    return tuple(place for place in places if place.slots)


def describe_places(space: SearchSpace, nodes: Iterable[Node], places: Sequence[Place]) -> list[str]:
    """What each node with GPUs is used for, one line each; nothing where all are used alike."""
    by_address = {place.address: place for place in places}
    lines = []
    for node in (node for node in _by_address(n for n in nodes if n.gpus) if None not in by_address):
        has = [f"{n} × {name}, {size / GIB:.0f} GiB" for (name, size), n in Counter(node.gpus).items()]
        place, use = by_address.get(node.address), "not used"
        if place is not None:
            fit = "all" if place.trials is None else f"{len(place.trials):,} of {len(space.factors()):,}"
            use = f"{place.slots} trials at once, each with {place.share:g} of a GPU; {fit} trials fit"
        lines.append(f"node {node.name} ({'; '.join(has)}): {use}")
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
    """The cells that a GPU has memory for, with the part of it that each is given."""
    try:
        planned = plan_space(space, Assumptions(gpu_bytes, 1.0))
    except ShapeError as error:
        if space.exclusive:
            return dict.fromkeys(space.factors(), 1.0)
        raise InputError(
            f"{error}: say with --gpus-per-trial what part of a GPU a trial is to have"
        ) from None
    shares = {Factors(t.model, t.task, t.strategy, t.seed): t.gpu_share for t in planned if t.gpu_share <= 1}
    return dict.fromkeys(shares, 1.0) if space.exclusive else shares


def _one_kind(nodes: Sequence[Node]) -> list[Node]:
    """The nodes of the kind that has the most GPUs, or the largest where several do.

    A node whose own GPUs differ is taken only where there is no other.
    """
    counts = Counter({node.kind: 0 for node in nodes if len(node.kind) == 1} or {n.kind: 0 for n in nodes})
    for node in nodes:
        if node.kind in counts:
            counts[node.kind] += len(node.gpus)
    chosen = max(counts, key=lambda kind: (counts[kind], min(size for _, size in kind)))
    return [node for node in nodes if node.kind == chosen]
