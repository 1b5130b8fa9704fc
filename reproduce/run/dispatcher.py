"""Which trial runs next and on which nodes; which trials restart after a worker or node died.

Tune asks a searcher for its next trial. Where nodes differ, this searcher assigns each trial to a node that it
fits into and that has room, so that faster nodes receive more trials, and reassigns those of a dead node.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ray
from ray.tune.search import Searcher

from reproduce.plan.spec import TrialSpec
from reproduce.run.canary import Canary
from reproduce.run.placement import NodeGroup, Resources
from reproduce.run.tune_compat import Assignment, SweepStopper, to_config

# Trials that wait at a node for each that runs there: Tune keeps a worker only if one waits for it.
_AHEAD = 1
# How often a trial whose worker died is restarted.
RESTARTS = 2
_REFRESH_SECONDS = 5.0
# Ray needs some 20 s to detect that a node is dead; until then it reports it as alive.
_REST_SECONDS = 30.0
_NOTIFY_SECONDS = 20.0
_PATIENCE_SECONDS = 600.0


class LivingNodes:
    """What the cluster's living nodes could run, by Ray's list of nodes, refreshed every few seconds."""

    def __init__(self, cpus: float) -> None:
        self._cpus = cpus
        self._resources: list[Mapping[str, float]] = []
        self._able: dict[NodeGroup, bool] = {}
        self._refreshed = float("-inf")

    def able(self, group: NodeGroup) -> bool:
        """Whether an otherwise idle living node of the group could run a trial."""
        if time.monotonic() - self._refreshed >= _REFRESH_SECONDS:
            self._resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            self._able, self._refreshed = {}, time.monotonic()
        if group not in self._able:
            needed = group.resources(self._cpus)
            self._able[group] = any(
                all(node.get(name, 0) >= amount for name, amount in needed.items())
                for node in self._resources
            )
        return self._able[group]


class Dispatcher(Searcher):
    """Assigns every trial: to the emptiest node group first, and there the trial that the fewest groups accept.

    It also restarts trials whose worker died. Tune's own restart would give up a trial whose worker dies
    while it is being reset for it.

    Args:
        alone: whether only one trial runs at a time.
        canary: says which trial must run again now, before the others; None if none ever must.
    """

    def __init__(
        self, specs: Iterable[TrialSpec], resources: Resources, *, alone: bool, canary: Canary | None = None
    ):
        super().__init__()
        self._resources, self._alone, self._canary = resources, alone, canary
        self._groups, self._living = resources.groups, LivingNodes(resources.cpus)
        # By the groups that accept them; within, in the order of running, so that models seldom change.
        self._waiting: dict[tuple[int, ...], deque[TrialSpec]] = {}
        self._known: dict[str, tuple[TrialSpec, tuple[int, ...]]] = {}
        for spec in specs:
            acceptors = tuple(i for i, group in enumerate(self._groups) if group.accepts(spec.factors))
            self._waiting.setdefault(acceptors, deque()).append(spec)
            self._known[spec.run_id] = (spec, acceptors)
        self._assigned: dict[str, tuple[TrialSpec, tuple[int, ...], int]] = {}
        self._deaths: Counter[str] = Counter()
        self._to_restart: set[str] = set()
        self._resting = [float("-inf")] * len(self._groups)

    @property
    def max_concurrent(self) -> int | None:
        """How many trials may run at once; None for as many as fit."""
        # A node that joins must not share the device of a trial that counts as alone.
        return 1 if self._alone else self._resources.max_concurrent

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._canary is not None and (run_id := self._canary.take_due()):
            spec, acceptors = self._known[run_id]
            self._waiting[acceptors].appendleft(spec)
        load = Counter(index for _, _, index in self._assigned.values())
        slots = {i: g.slots for i, g in enumerate(self._groups) if self._able(i) or not self._assigned}
        # Tune stalls while it has no trial at all, so it always keeps one, even one that must wait.
        for index in sorted(slots, key=lambda i: (not self._able(i), load[i] / (slots[i] or math.inf))):
            offers = [acceptors for acceptors, queue in self._waiting.items() if queue and index in acceptors]
            full = slots[index] and load[index] >= slots[index] * (1 + _AHEAD)
            if offers and not full:
                acceptors = min(offers, key=len)
                spec = self._waiting[acceptors].popleft()
                self._assigned[trial_id] = (spec, acceptors, index)
                return to_config(self._assignment(spec, self._groups[index]))
        return None if self._assigned or any(self._waiting.values()) else Searcher.FINISHED

    def _assignment(self, spec: TrialSpec, group: NodeGroup) -> Assignment:
        resources = group.resources(self._resources.cpus)
        return Assignment(spec.run_id, resources, group.share or None, group.share >= 1 or self._alone)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        spec, acceptors, index = self._assigned.pop(trial_id)
        if error:
            self._deaths[spec.run_id] += 1
            self._resting[index] = time.monotonic() + _REST_SECONDS
        if result is None and self._deaths[spec.run_id] <= RESTARTS:
            self._waiting[acceptors].appendleft(spec)
            self._to_restart.add(trial_id)

    def restarts(self, trial_id: str) -> bool:
        """Whether a trial that ended without a result runs again."""
        return trial_id in self._to_restart

    def stranded(self) -> set[str]:
        """Tune's ids of trials whose group can run nothing now, while another group could run them."""
        return {
            trial_id
            for trial_id, (_, acceptors, index) in self._assigned.items()
            if not self._able(index) and any(map(self._able, acceptors))
        }

    def without_nodes(self) -> bool:
        """Whether no living node could run any of the remaining trials."""
        remaining = {acceptors for acceptors, queue in self._waiting.items() if queue}
        remaining |= {acceptors for _, acceptors, _ in self._assigned.values()}
        return not any(
            self._living.able(self._groups[index]) for acceptors in remaining for index in acceptors
        )

    def _able(self, index: int) -> bool:
        # A group that is bound to no node waits for any, and may make an autoscaler start one.
        group, now = self._groups[index], time.monotonic()
        return group.address is None or (now >= self._resting[index] and self._living.able(group))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: Tune does not resume sweeps here."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class StopWhenNoNodes(SweepStopper):
    """Ends a sweep whose nodes have left, after a wait in which they may return.

    Args:
        without_nodes: whether no living node could run any of the remaining trials.
        notify: shows a sentence to the user.

    Attributes:
        ended: whether it has ended the sweep.
    """

    def __init__(self, without_nodes: Callable[[], bool], notify: Callable[[str], None]):
        self._without_nodes, self._notify = without_nodes, notify
        self._since: float | None = None
        self._notified = False
        self.ended = False

    def stop_all(self) -> bool:
        now = time.monotonic()
        if not self._without_nodes():
            self._since, self._notified = None, False
            return False
        self._since = self._since or now
        waited = now - self._since
        if waited >= _NOTIFY_SECONDS and not self._notified:
            self._notified = True
            minutes = (_PATIENCE_SECONDS - waited) / 60
            self._notify(f"no node can run the next trial: waiting {minutes:.0f} minutes for one to join")
        self.ended = waited >= _PATIENCE_SECONDS
        return self.ended
