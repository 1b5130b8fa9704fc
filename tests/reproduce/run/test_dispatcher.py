"""The order in which trials are handed out, and what becomes of them when workers and nodes die."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from ray.tune.search import Searcher

from lfreeze.recipe import Recipe
from reproduce.plan.search_space import load_space
from reproduce.plan.spec import Factors, Inputs, TrialSpec
from reproduce.run import dispatcher as dispatch
from reproduce.run.dispatcher import RESTARTS, Dispatcher, StopWhenDeserted
from reproduce.run.placement import Place, Resources

RECIPE: Recipe = load_space("embedded").recipe
INPUTS = Inputs("m", "w", "t", "d", "f")


def spec(strategy: str, seed: int) -> TrialSpec:
    return TrialSpec(Factors("tiny-gemma", "tiny-cb", strategy, seed), RECIPE, INPUTS, "test")


class Cluster:
    """What Ray would say of its nodes, and the time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **nodes: dict[str, float]) -> None:
        self.nodes, self.dead, self.now = nodes, set[str](), 1000.0
        monkeypatch.setattr(dispatch.ray, "nodes", self.listed)
        monkeypatch.setattr(dispatch.time, "monotonic", lambda: self.now)

    def listed(self) -> list[dict[str, Any]]:
        return [
            {"Alive": name not in self.dead, "Resources": {"CPU": 4.0, f"node:{name}": 1.0, **resources}}
            for name, resources in self.nodes.items()
        ]


def test_alike_nodes_get_the_trials_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    Cluster(monkeypatch, a={})
    specs = [spec(s, seed) for seed in range(20) for s in ("ALL", "BOT50")]
    dispatcher = Dispatcher(specs, Resources(), alone=False)
    given = [dispatcher.suggest(str(i)) for i in range(40)]
    assert [g["trial"]["run_id"] for g in given if isinstance(g, dict)] == [s.run_id for s in specs]
    first = given[0]
    assert isinstance(first, dict)
    assert first["trial"] == {
        "model": "tiny-gemma", "task": "tiny-cb", "strategy": "ALL", "seed": 0, "run_id": specs[0].run_id,
        "name": "tiny-gemma/tiny-cb/ALL/seed0", "resources": {"CPU": 1.0}, "gpu_share": None, "exclusive": False,
    }  # fmt: skip
    assert dispatcher.suggest("x") is None
    for i in range(40):
        dispatcher.on_trial_complete(str(i), {"done": True})
    assert dispatcher.suggest("x") == Searcher.FINISHED


def test_a_large_node_begins_with_what_fits_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    Cluster(monkeypatch, large={"GPU": 1.0}, small={"GPU": 1.0})
    specs = [spec(s, seed) for seed in range(3) for s in ("BOT75", "ALL")]
    fits = frozenset(s.factors for s in specs if s.factors.strategy == "BOT75")
    places = (Place(0.5, "large", 2), Place(1.0, "small", 1, fits))
    dispatcher = Dispatcher(specs, Resources(1, places), alone=False)
    given = [dispatcher.suggest(str(i)) for i in range(6)]
    seen = [(g["trial"]["strategy"], g["trial"]["gpu_share"]) for g in given if isinstance(g, dict)]
    # The emptier of the two each time; the large one takes ALL as long as there is any.
    assert seen == [("ALL", 0.5), ("BOT75", 1.0), ("ALL", 0.5), ("ALL", 0.5), ("BOT75", 1.0), ("BOT75", 0.5)]


@pytest.mark.parametrize("seed", range(8))
def test_every_trial_ends_once_whatever_dies(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """A random course of events: trials end, workers and nodes die and come back."""
    rng = random.Random(seed)
    cluster = Cluster(monkeypatch, a={"GPU": 2.0}, b={"GPU": 1.0}, c={"GPU": 1.0})
    specs = [spec(s, n) for n in range(25) for s in ("ALL", "BOT50", "BOT75")]
    some = frozenset(s.factors for s in specs if s.factors.strategy != "ALL")
    few = frozenset(s.factors for s in specs if s.factors.strategy == "BOT75")
    places = {"a": Place(0.5, "a", 4), "b": Place(1.0, "b", 1, some), "c": Place(1.0, "c", 1, few)}
    dispatcher = Dispatcher(specs, Resources(1, tuple(places.values())), alone=False)
    ended, lost, deaths = Counter[str](), Counter[str](), Counter[str]()
    live: dict[str, dict[str, Any]] = {}
    factors = {s.run_id: s.factors for s in specs}
    for turn in range(5000):
        cluster.now += rng.expovariate(1 / 3)
        suggested = dispatcher.suggest(str(turn))
        if suggested == Searcher.FINISHED:
            break
        if isinstance(suggested, dict):
            trial = suggested["trial"]
            (name,) = (key[5:] for key in trial["resources"] if key.startswith("node:"))
            assert places[name].takes(factors[trial["run_id"]])
            live[str(turn)] = trial | {"node": name}
            at_once = Counter(t["node"] for t in live.values())
            assert all(at_once[n] <= 2 * place.slots for n, place in places.items())
        for trial_id in dispatcher.stranded():
            dispatcher.on_trial_complete(trial_id)
            assert dispatcher.taken_back(trial_id)
            del live[trial_id]
        if live and rng.random() < 0.5:
            trial_id = rng.choice(list(live))
            trial = live.pop(trial_id)
            if rng.random() < 0.1:
                deaths[trial["run_id"]] += 1
                dispatcher.on_trial_complete(trial_id, error=True)
                assert dispatcher.taken_back(trial_id) == (deaths[trial["run_id"]] <= RESTARTS)
                lost[trial["run_id"]] += not dispatcher.taken_back(trial_id)
            else:
                dispatcher.on_trial_complete(trial_id, {"done": True})
                ended[trial["run_id"]] += 1
        if rng.random() < 0.03:
            cluster.dead ^= {rng.choice("abc")}
    assert not live
    assert set((ended + lost).values()) == {1}
    assert len(ended + lost) == len(specs)


def test_a_sweep_that_all_nodes_left_waits_and_then_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch, a={"GPU": 1.0}, b={"GPU": 1.0})
    fits = frozenset({spec("BOT75", 0).factors})
    places = (Place(1.0, "a", 1), Place(1.0, "b", 1, fits))
    dispatcher = Dispatcher([spec("ALL", 0), spec("BOT75", 0)], Resources(1, places), alone=False)
    told: list[str] = []
    stopper = StopWhenDeserted(dispatcher, told.append)
    assert not stopper.stop_all()
    # BOT75 can go on at b; once it is done, nothing that is left can.
    cluster.dead = {"a"}
    cluster.now += 500
    given = dispatcher.suggest("1")
    assert isinstance(given, dict)
    assert given["trial"]["strategy"] == "BOT75"
    assert not stopper.stop_all()
    dispatcher.on_trial_complete("1", {"done": True})
    # Tune stands still, and asks no stopper, while it has nothing at all.
    waiting = dispatcher.suggest("2")
    assert isinstance(waiting, dict)
    assert waiting["trial"]["strategy"] == "ALL"
    assert dispatcher.stranded() == set()
    assert not stopper.stop_all()
    cluster.now += 60
    assert not stopper.stop_all()
    assert not stopper.stop_all()
    assert told == ["no node is left that could run the next trial: waiting 9 minutes for one"]
    cluster.dead, cluster.now = set(), cluster.now + 6
    assert not stopper.stop_all()
    cluster.dead, cluster.now = {"a", "b"}, cluster.now + 6
    assert not stopper.stop_all()
    cluster.now += 599
    assert not stopper.stop_all()
    cluster.now += 2
    assert stopper.stop_all()
    assert len(told) == 2
