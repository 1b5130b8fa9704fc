"""Which nodes of a cluster accept which trials, and with what share of a GPU."""

from __future__ import annotations

import pytest

from lfreeze.errors import InputError
from reproduce.plan.cost import GIB, assumptions, plan_space
from reproduce.plan.search_space import SearchSpace, load_space
from reproduce.run.placement import Node, NodeGroup, Resources, choose_node_groups, describe_node_groups

H100, A10 = ("NVIDIA H100", 80 * GIB), ("NVIDIA A10", 24 * GIB)


def space(name: str = "paper", **axes: str) -> SearchSpace:
    chosen = {"models": "phi-2", "tasks": "rte", "seeds": "42,43"} | axes
    return load_space(name, {axis: text.split(",") for axis, text in chosen.items()})


def node(address: str, *gpus: tuple[str, int], cpus: float = 32) -> Node:
    return Node(address, address, cpus, gpus)


def test_where_all_gpus_are_equal_any_node_is_used() -> None:
    for nodes in ([node("a", H100), node("b", H100, H100)], [node("a", H100), node("driver")]):
        (group,) = choose_node_groups(space(), None, nodes)
        assert group.address is None
        assert group.share == choose_node_groups(space(), None, [node("a", H100)])[0].share > 0
        assert describe_node_groups(space(), nodes, (group,)) == []
    assert choose_node_groups(load_space("embedded"), None, [node("a"), node("b")]) == (NodeGroup(0.0),)


def test_a_requested_share_applies_to_every_node() -> None:
    assert choose_node_groups(space(), 0.5, [node("a", H100), node("b", A10)]) == (NodeGroup(0.5),)


def test_gpus_of_other_models_with_the_same_share_are_equal() -> None:
    nodes = [node("a", H100), node("b", ("NVIDIA A100", 80 * GIB - 2**20))]
    assert choose_node_groups(space(), None, nodes) == choose_node_groups(space(), None, nodes[:1])


def test_each_node_accepts_what_fits_into_its_memory() -> None:
    """Against the predicted bytes, plus 15 % and half a GiB for CUDA."""
    sweep = space()
    nodes = [node("a", H100, H100), node("b", A10, cpus=1), node("c", ("tiny", GIB)), node("driver")]
    large, small = choose_node_groups(sweep, None, nodes)
    planned = plan_space(sweep, assumptions(sweep, 80, None))
    need = {
        (t.factors.strategy, t.factors.seed): (t.static_bytes + t.training_bytes) * 1.15 + 0.5 * GIB
        for t in planned
    }
    assert (large.address, small.address) == ("a", "b")
    assert large.trials is None
    assert small.trials is not None
    assert {(c.strategy, c.seed) for c in small.trials} == {k for k, v in need.items() if v <= 24 * GIB}
    assert "BOT75" in {c.strategy for c in small.trials}
    assert "ALL" not in {c.strategy for c in small.trials}
    most = max(need.values())
    assert large.share == pytest.approx(1 / (80 * GIB // most), abs=1e-4)
    assert large.slots == 2 * (80 * GIB // most)
    assert small.slots == 1
    lines = describe_node_groups(sweep, nodes, (large, small))
    assert lines[0].startswith("node a (2 × NVIDIA H100, 80 GiB): ")
    assert lines[1].endswith(f"; {len(small.trials)} of 34 trials fit")
    assert lines[2] == "node c (1 × tiny, 1 GiB): not used"
    assert len(lines) == 3


def test_a_nodes_smallest_gpu_decides_for_it() -> None:
    """Ray, not the trial, chooses among the GPUs of a node."""
    groups = choose_node_groups(space(), None, [node("a", H100, A10), node("b", H100)])
    alone = choose_node_groups(space(), None, [node("a", A10), node("b", H100)])
    assert [(p.share, p.trials) for p in groups] == [(p.share, p.trials) for p in alone]


def test_times_are_measured_on_the_most_frequent_kind_of_gpu() -> None:
    sweep = space("efficiency", tasks="tiny-mnli")
    h200 = ("NVIDIA H200", 141 * GIB)
    nodes = [node("a", h200), node("b", H100), node("c", H100, H100), node("d", A10, A10, A10, A10)]
    groups = choose_node_groups(sweep, None, nodes)
    assert [(p.address, p.share, p.slots) for p in groups] == [("b", 1.0, 1), ("c", 1.0, 2)]
    (equal,) = choose_node_groups(sweep, None, nodes[:2])
    assert equal.address == "a"
    assert choose_node_groups(sweep, None, nodes[1:3]) == (NodeGroup(1.0),)
    # GPUs of one model, with some memory reserved on one of them; and a requested share.
    assert choose_node_groups(sweep, None, [nodes[1], node("e", (H100[0], H100[1] - 2**27))]) == (
        NodeGroup(1.0),
    )
    assert [p.address for p in choose_node_groups(sweep, 1.0, nodes)] == ["b", "c"]
    # A node whose own GPUs differ is not used to measure times.
    assert [p.address for p in choose_node_groups(sweep, None, [node("a", h200, H100, H100), nodes[1]])] == [
        "b"
    ]


def test_nodes_at_one_address_count_as_one() -> None:
    """What Ray binds to an address may run on any of them."""
    nodes = [Node("a (1)", "a", 1, (H100,)), Node("a (2)", "a", 2, (A10,)), node("b", H100)]
    one, other = choose_node_groups(space(), None, nodes)
    assert (one.address, one.slots) == ("a", 2)
    assert one.trials == choose_node_groups(space(), None, [node("a", A10), node("b", H100)])[0].trials
    assert (other.address, other.trials) == ("b", None)
    assert len(describe_node_groups(space(), nodes, (one, other))) == 2


def test_a_trial_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"the largest trial of paper needs .* times the 24 GiB of the largest"
    ):
        choose_node_groups(space(), None, [node("a", A10), node("b", ("small", 8 * GIB))])
    with pytest.raises(
        InputError, match="--gpus-per-trial 2 is more GPUs than any node has: the maximum is 1"
    ):
        choose_node_groups(space(), 2.0, [node("a", H100), node("b", H100)])
    with pytest.raises(InputError, match="the space paper needs a GPU, but this cluster has none"):
        choose_node_groups(space(), None, [node("a"), node("b")])


def test_how_many_run_at_once() -> None:
    cluster = {"CPU": 8.0, "GPU": 2.0}
    assert Resources(1, (NodeGroup(0.25),)).concurrency(cluster) == 8
    assert Resources(2, (NodeGroup(0.0),)).concurrency(cluster) == 4
    assert Resources(1, (NodeGroup(0.25),), 3).concurrency(cluster) == 3
    assert Resources(1, (NodeGroup(1.0, "a", 2), NodeGroup(0.5, "b", 4))).concurrency(cluster) == 6
    with pytest.raises(InputError, match="needs 16 CPUs and 0 GPUs, but this cluster has 8 CPUs"):
        Resources(16, (NodeGroup(0.0),)).concurrency(cluster)
    assert NodeGroup(0.5, "10.0.0.7", 1).resources(2) == {"CPU": 2, "GPU": 0.5, "node:10.0.0.7": 0.001}
