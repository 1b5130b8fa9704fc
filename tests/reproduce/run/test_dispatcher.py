"""The order in which trials are assigned, and what happens to them when workers and nodes die."""

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
from reproduce.run.dispatcher import RESTARTS, Dispatcher, StopWhenNoNodes
from reproduce.run.placement import NodeGroup, Resources
from reproduce.run.tune_compat import Assignment, from_config

RECIPE: Recipe = load_space("embedded").recipe
INPUTS = Inputs("m", "w", "t", "d", "f")


def spec(strategy: str, seed: int) -> TrialSpec:
    return TrialSpec(Factors("tiny-gemma", "tiny-cb", strategy, seed), RECIPE, INPUTS, "test")


def assigned(suggestion: dict[str, Any] | str | None) -> Assignment:
    assert isinstance(suggestion, dict)
    return from_config(suggestion)


class Cluster:
    """Ray's list of nodes, and the time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **nodes: dict[str, float]) -> None:
        self.nodes, self.dead, self.now = nodes, set[str](), 1000.0
        monkeypatch.setattr(dispatch.ray, "nodes", self.listed)
        monkeypatch.setattr(dispatch.time, "monotonic", lambda: self.now)

    def listed(self) -> list[dict[str, Any]]:
        return [
            {"Alive": name not in self.dead, "Resources": {"CPU": 4.0, f"node:{name}": 1.0, **resources}}
            for name, resources in self.nodes.items()
        ]


def test_equal_nodes_get_the_trials_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    Cluster(monkeypatch, a={})
    specs = [spec(s, seed) for seed in range(20) for s in ("ALL", "BOT50")]
    dispatcher = Dispatcher(specs, Resources(), alone=False)
    assignments = [assigned(dispatcher.suggest(str(i))) for i in range(40)]
    assert [a.run_id for a in assignments] == [s.run_id for s in specs]
    assert assignments[0] == Assignment(specs[0].run_id, {"CPU": 1.0}, gpu_share=None, exclusive=False)
    assert dispatcher.suggest("x") is None
    for i in range(40):
        dispatcher.on_trial_complete(str(i), {"done": True})
    assert dispatcher.suggest("x") == Searcher.FINISHED


def test_a_large_node_starts_with_what_fits_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    Cluster(monkeypatch, large={"GPU": 1.0}, small={"GPU": 1.0})
    specs = [spec(s, seed) for seed in range(3) for s in ("BOT75", "ALL")]
    fits = frozenset(s.factors for s in specs if s.factors.strategy == "BOT75")
    groups = (NodeGroup(0.5, "large", 2), NodeGroup(1.0, "small", 1, fits))
    dispatcher = Dispatcher(specs, Resources(1, groups), alone=False)
    strategies = {s.run_id: s.factors.strategy for s in specs}
    assignments = [assigned(dispatcher.suggest(str(i))) for i in range(6)]
    seen = [(strategies[a.run_id], a.gpu_share) for a in assignments]
    # The emptier of the two each time; the large one runs ALL while there is any.
    assert seen == [("ALL", 0.5), ("BOT75", 1.0), ("ALL", 0.5), ("ALL", 0.5), ("BOT75", 1.0), ("BOT75", 0.5)]


@pytest.mark.parametrize("seed", range(8))
def test_every_trial_ends_once_whatever_dies(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """A random course of events: trials end, workers and nodes die and return."""
    rng = random.Random(seed)
    cluster = Cluster(monkeypatch, a={"GPU": 2.0}, b={"GPU": 1.0}, c={"GPU": 1.0})
    specs = [spec(s, n) for n in range(25) for s in ("ALL", "BOT50", "BOT75")]
    some = frozenset(s.factors for s in specs if s.factors.strategy != "ALL")
    few = frozenset(s.factors for s in specs if s.factors.strategy == "BOT75")
    groups = {
        "a": NodeGroup(0.5, "a", 4),
        "b": NodeGroup(1.0, "b", 1, some),
        "c": NodeGroup(1.0, "c", 1, few),
    }
    dispatcher = Dispatcher(specs, Resources(1, tuple(groups.values())), alone=False)
    ended, lost, deaths = Counter[str](), Counter[str](), Counter[str]()
    live: dict[str, tuple[str, str]] = {}
    factors = {s.run_id: s.factors for s in specs}
    for turn in range(5000):
        cluster.now += rng.expovariate(1 / 3)
        suggested = dispatcher.suggest(str(turn))
        if suggested == Searcher.FINISHED:
            break
        if isinstance(suggested, dict):
            assignment = assigned(suggested)
            (node,) = (key[5:] for key in assignment.resources if key.startswith("node:"))
            assert groups[node].accepts(factors[assignment.run_id])
            live[str(turn)] = (assignment.run_id, node)
            at_once = Counter(node for _, node in live.values())
            assert all(at_once[n] <= 2 * group.slots for n, group in groups.items())
        for trial_id in dispatcher.stranded():
            dispatcher.on_trial_complete(trial_id)
            assert dispatcher.restarts(trial_id)
            del live[trial_id]
        if live and rng.random() < 0.5:
            trial_id = rng.choice(list(live))
            run_id, _ = live.pop(trial_id)
            if rng.random() < 0.1:
                deaths[run_id] += 1
                dispatcher.on_trial_complete(trial_id, error=True)
                assert dispatcher.restarts(trial_id) == (deaths[run_id] <= RESTARTS)
                lost[run_id] += not dispatcher.restarts(trial_id)
            else:
                dispatcher.on_trial_complete(trial_id, {"done": True})
                ended[run_id] += 1
        if rng.random() < 0.03:
            cluster.dead ^= {rng.choice("abc")}
    assert not live
    assert set((ended + lost).values()) == {1}
    assert len(ended + lost) == len(specs)


def test_a_sweep_without_nodes_waits_and_then_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch, a={"GPU": 1.0}, b={"GPU": 1.0})
    full, bot75 = spec("ALL", 0), spec("BOT75", 0)
    fits = frozenset({bot75.factors})
    groups = (NodeGroup(1.0, "a", 1), NodeGroup(1.0, "b", 1, fits))
    dispatcher = Dispatcher([full, bot75], Resources(1, groups), alone=False)
    sentences: list[str] = []
    stopper = StopWhenNoNodes(dispatcher.without_nodes, sentences.append)
    assert not stopper.stop_all()
    # BOT75 can still run on b; once it is done, no remaining trial can run.
    cluster.dead = {"a"}
    cluster.now += 500
    assert assigned(dispatcher.suggest("1")).run_id == bot75.run_id
    assert not stopper.stop_all()
    dispatcher.on_trial_complete("1", {"done": True})
    # Tune stalls, and calls no stopper, while it has no trial at all.
    assert assigned(dispatcher.suggest("2")).run_id == full.run_id
    assert dispatcher.stranded() == set()
    assert not stopper.stop_all()
    cluster.now += 60
    assert not stopper.stop_all()
    assert not stopper.stop_all()
    assert sentences == ["no node can run the next trial: waiting 9 minutes for one to join"]
    cluster.dead, cluster.now = set(), cluster.now + 6
    assert not stopper.stop_all()
    cluster.dead, cluster.now = {"a", "b"}, cluster.now + 6
    assert not stopper.stop_all()
    cluster.now += 599
    assert not stopper.stop_all()
    assert not stopper.ended
    cluster.now += 2
    assert stopper.stop_all()
    assert stopper.ended
    assert len(sentences) == 2
