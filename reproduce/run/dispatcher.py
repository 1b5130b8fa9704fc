"""Which trial of the grid runs next, and where; what becomes of those whose worker or node died.

Tune asks a searcher for its next trial. Where nodes differ, this one hands a trial to a node that it fits
into and that has room, so that a fast node gets more of them, and takes back what waits for a dead one.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import ray
from ray import tune
from ray.air.execution._internal import RayActorManager
from ray.exceptions import RayActorError, RayTaskError
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import NoopStopper

from reproduce.plan.spec import TrialSpec
from reproduce.run.placement import Place, Resources

# Trials that wait at a node for each that runs there: Tune keeps a worker only if one waits for it.
_AHEAD = 1
# Trials whose worker died begin again so many times.
RESTARTS = 2
_LOOK_SECONDS = 5.0
# Ray takes some 20 s to find that a node is dead; until then it looks alive.
_REST_SECONDS = 30.0
_TELL_SECONDS = 20.0
_PATIENCE_SECONDS = 600.0


class LivingNodes:
    """What the cluster's living nodes could run, by Ray's list of them, looked at every few seconds."""

    def __init__(self, cpus: float) -> None:
        self._cpus = cpus
        self._resources: list[Mapping[str, float]] = []
        self._able: dict[Place, bool] = {}
        self._looked = float("-inf")

    def able(self, place: Place) -> bool:
        """Whether a trial could run at a place, on a living node that had nothing else to do."""
        if time.monotonic() - self._looked >= _LOOK_SECONDS:
            self._resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            self._able, self._looked = {}, time.monotonic()
        if place not in self._able:
            asked = place.resources(self._cpus)
            self._able[place] = any(
                all(has.get(name, 0) >= need for name, need in asked.items()) for has in self._resources
            )
        return self._able[place]


class Dispatcher(Searcher):
    """Hands out every trial: the emptiest place first, and there the trial that the fewest places take.

    A trial whose worker died is handed out again. That is not left to Tune, which gives up a trial whose
    worker dies while it is being reset for it.

    Args:
        alone: whether only one trial runs at a time.
    """

    def __init__(self, specs: Iterable[TrialSpec], resources: Resources, *, alone: bool):
        super().__init__()
        self._resources, self._alone = resources, alone
        self._places, self._living = resources.places, LivingNodes(resources.cpus)
        # By the places that take them; the order within is that of running, so that models seldom change.
        self._waiting: dict[tuple[int, ...], deque[TrialSpec]] = {}
        for spec in specs:
            takers = tuple(i for i, place in enumerate(self._places) if place.takes(spec.factors))
            self._waiting.setdefault(takers, deque()).append(spec)
        self._given: dict[str, tuple[TrialSpec, tuple[int, ...], int]] = {}
        self._deaths: Counter[str] = Counter()
        self._again: set[str] = set()
        self._resting = [float("-inf")] * len(self._places)

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        load = Counter(index for _, _, index in self._given.values())
        slots = {i: place.slots for i, place in enumerate(self._places) if self._able(i) or not self._given}
        # Tune stands still while it has nothing at all, so that it is always left a trial, to wait if need be.
        for index in sorted(slots, key=lambda i: (not self._able(i), load[i] / (slots[i] or math.inf))):
            offers = [takers for takers, queue in self._waiting.items() if queue and index in takers]
            full = slots[index] and load[index] >= slots[index] * (1 + _AHEAD)
            if offers and not full:
                takers = min(offers, key=len)
                spec = self._waiting[takers].popleft()
                self._given[trial_id] = (spec, takers, index)
                return {"trial": self._config(spec, self._places[index])}
        return None if self._given or any(self._waiting.values()) else Searcher.FINISHED

    def _config(self, spec: TrialSpec, place: Place) -> dict[str, Any]:
        """One cell of the grid, as Tune and the dashboard show it, and what it is given."""
        return {
            **asdict(spec.factors),
            "run_id": spec.run_id,
            "name": str(spec.factors),
            "resources": place.resources(self._resources.cpus),
            "gpu_share": place.share or None,
            "exclusive": place.share >= 1 or self._alone,
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        spec, takers, index = self._given.pop(trial_id)
        if error:
            self._deaths[spec.run_id] += 1
            self._resting[index] = time.monotonic() + _REST_SECONDS
        if result is None and self._deaths[spec.run_id] <= RESTARTS:
            self._waiting[takers].appendleft(spec)
            self._again.add(trial_id)

    def taken_back(self, trial_id: str) -> bool:
        """Whether a trial that ended without a result is handed out again."""
        return trial_id in self._again

    def stranded(self) -> set[str]:
        """The trials given to places that can run nothing now, where others can; by Tune's ids."""
        return {
            trial_id
            for trial_id, (_, takers, index) in self._given.items()
            if not self._able(index) and any(map(self._able, takers))
        }

    def deserted(self) -> bool:
        """Whether no living node could run any of the trials that are left."""
        left = {takers for takers, queue in self._waiting.items() if queue}
        left |= {takers for _, takers, _ in self._given.values()}
        return not any(self._living.able(self._places[index]) for takers in left for index in takers)

    def _able(self, index: int) -> bool:
        # What is bound to no node waits for any, and may make an autoscaler start one.
        place, now = self._places[index], time.monotonic()
        return place.address is None or (now >= self._resting[index] and self._living.able(place))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: resuming is not Tune's."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


@contextlib.contextmanager
def every_error_is_a_trials() -> Iterator[None]:
    """Makes of any error of Ray's about a task one of the worker that ran it.

    Tune ends the whole experiment at those that it has no case for: a worker that Ray's memory monitor
    killed while it trained, a result that was lost with its node.
    """
    handle = RayActorManager._actor_task_failed

    def handle_any(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        known = isinstance(exception, RayActorError | RayTaskError)
        handle(self, tracked_actor_task, exception if known else RayActorError(error_msg=str(exception)))

    RayActorManager._actor_task_failed = handle_any
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = handle


class Rescue(FIFOScheduler):
    """Takes back from Tune what waits for a node that is gone."""

    def __init__(self, dispatcher: Dispatcher):
        super().__init__()
        self._dispatcher = dispatcher

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        stranded = self._dispatcher.stranded()
        if stranded:
            for trial in [t for t in tune_controller.get_live_trials() if t.trial_id in stranded]:
                # One that runs ends by itself, when Ray finds its worker dead; then it waits here too.
                if trial.status == "PENDING":
                    tune_controller.stop_trial(trial)
        return super().choose_trial_to_run(tune_controller)


class StopWhenDeserted(tune.Stopper):
    """Ends a sweep whose nodes have left, after a while in which they may come back."""

    def __init__(self, dispatcher: Dispatcher, tell: Callable[[str], None]):
        self._dispatcher, self._tell = dispatcher, tell
        self._since: float | None = None
        self._told = False

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune pickles its stoppers into a snapshot that nothing reads; this one holds a display.
        return NoopStopper, ()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        now = time.monotonic()
        if not self._dispatcher.deserted():
            self._since, self._told = None, False
            return False
        self._since = self._since or now
        alone = now - self._since
        if alone >= _TELL_SECONDS and not self._told:
            self._told = True
            minutes = (_PATIENCE_SECONDS - alone) / 60
            self._tell(
                f"no node is left that could run the next trial: waiting {minutes:.0f} minutes for one"
            )
        return alone >= _PATIENCE_SECONDS
