"""Which nodes of a cluster accept which trials, and with what share of a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from lfreeze.errors import InputError
from lfreeze.model_shape import ModelShape, ShapeError
from lfreeze.models.catalog import ModelCard
from reproduce.plan.cost import GIB, assumptions, plan_space
from reproduce.plan.search_space import SearchSpace, load_space
from reproduce.plan.spec import Factors
from reproduce.run.classes import Division, divide
from reproduce.run.placement import Node, NodeGroup, Resources

H100, A10 = ("NVIDIA H100", 80 * GIB), ("NVIDIA A10", 24 * GIB)


def space(name: str = "paper", **axes: str) -> SearchSpace:
    chosen = {"models": "phi-2", "tasks": "rte", "seeds": "42,43"} | axes
    return load_space(name, {axis: text.split(",") for axis, text in chosen.items()})


def node(address: str, *gpus: tuple[str, int], cpus: float = 32) -> Node:
    return Node(address, address, cpus, gpus)


def division(
    sweep: SearchSpace, nodes: list[Node], requested: float | None = None, **options: bool
) -> Division:
    return divide(sweep, nodes, requested, sweep.factors(), "this cluster", **options)


def groups(sweep: SearchSpace, nodes: list[Node], requested: float | None = None) -> tuple[NodeGroup, ...]:
    """Those of the only class."""
    (only,) = division(sweep, nodes, requested).classes
    return only.groups


def needs(sweep: SearchSpace) -> dict[Factors, float]:
    """The predicted bytes of each trial, plus 15 % and half a GiB for CUDA."""
    planned = plan_space(sweep, assumptions(sweep, 80, None))
    return {t.factors: (t.static_bytes + t.training_bytes) * 1.15 + 0.5 * GIB for t in planned}


def test_each_class_has_the_share_that_its_trials_need() -> None:
    sweep = space(models="gemma-2b,phi-2")
    need = needs(sweep)
    found = division(sweep, [node("a", H100)])
    assert sum(len(each.trials) for each in found.classes) == len(need) == 68
    for each in found.classes:
        (group,) = each.groups
        number = 80 * GIB // max(need[factors] for factors in each.trials)
        assert group == NodeGroup(int(1e4 / number) / 1e4)
        assert {80 * GIB // need[factors] for factors in each.trials} == {number}
        assert each.share == ("1" if number == 1 else f"1/{number:.0f}")
    shares = [each.groups[0].share for each in found.classes]
    assert len(shares) > 1
    assert shares == sorted(shares, reverse=True)
    (line,) = found.lines
    assert line.startswith(
        f"Share of a GPU, one class after another: 1 ({len(found.classes[0].trials)} trials), 1/2 ("
    )


def test_only_trials_without_a_result_have_a_class() -> None:
    sweep = space()
    wanted = {f for f in sweep.factors() if f.strategy in ("BOT75", "LoRA") and f.seed == 42}
    found = divide(sweep, [node("a", H100)], None, wanted, "this machine")
    assert frozenset().union(*(each.trials for each in found.classes)) == wanted


def test_where_all_gpus_are_equal_any_node_is_used() -> None:
    alone = division(space(), [node("a", H100)])
    for nodes in ([node("a", H100), node("b", H100, H100)], [node("a", H100), node("driver")]):
        assert division(space(), nodes) == alone
    assert groups(load_space("embedded"), [node("a"), node("b")]) == (NodeGroup(0.0),)
    assert division(load_space("embedded"), [node("a"), node("b")]).lines == ()


def test_a_requested_share_applies_to_every_node() -> None:
    nodes = [node("a", H100), node("b", A10)]
    assert groups(space(), nodes, 0.5) == (NodeGroup(0.5),)
    assert division(space(), nodes, 0.5).lines == ("Share of the largest GPU: 1/2 (34 trials)",)
    assert groups(space(), [node("a"), node("b", A10)], 0) == (NodeGroup(0.0),)


def test_gpus_of_other_models_with_the_same_share_are_equal() -> None:
    nodes = [node("a", H100), node("b", ("NVIDIA A100", 80 * GIB - 2**20))]
    for each in division(space(), nodes).classes:
        assert [group.address for group in each.groups] == [None]


def test_each_node_accepts_what_fits_into_its_memory() -> None:
    sweep = space(models="gemma-2b,phi-2")
    need = needs(sweep)
    nodes = [node("a", H100, H100), node("b", A10, cpus=1), node("c", ("tiny", GIB)), node("driver")]
    found = division(sweep, nodes)
    accepted: set[Factors] = set()
    for each in found.classes:
        large, *others = each.groups
        most = 80 * GIB // max(need[factors] for factors in each.trials)
        assert (large.address, large.trials, large.slots) == ("a", None, 2 * most)
        assert large.share == pytest.approx(1 / most, abs=1e-4)
        small = {factors for factors in each.trials if need[factors] <= 24 * GIB}
        assert [group.address for group in others] == (["b"] if small else [])
        for group in others:
            assert group.slots == 1
            assert group.trials in (small, None)
            accepted |= small
    assert "BOT75" in {f.strategy for f in accepted}
    assert "ALL" not in {f.strategy for f in accepted}
    assert found.lines[0].startswith("Share of the largest GPU, one class after another: ")
    per_class = len(found.lines[1:]) // len(found.classes)
    assert per_class == 3
    for each, start in zip(found.classes, range(1, len(found.lines), 3), strict=True):
        first, second, third = found.lines[start : start + 3]
        assert first.startswith(f"share {each.share}: node a (2 × NVIDIA H100, 80 GiB): ")
        assert second.startswith(f"share {each.share}: node b (1 × NVIDIA A10, 24 GiB): ")
        assert third == f"share {each.share}: node c (1 × tiny, 1 GiB): not used"


def test_a_node_has_one_share_at_a_time() -> None:
    """Within a class, since Ray packs mixed fractions badly."""
    nodes = [node("a", H100), node("b", A10), node("c", ("NVIDIA L40S", 48 * GIB), A10)]
    for each in division(space(models="gemma-2b,phi-2,minicpm-2b-128k"), nodes).classes:
        addresses = [group.address for group in each.groups]
        assert len(addresses) == len(set(addresses))


def test_a_nodes_smallest_gpu_decides_for_it() -> None:
    """Ray, not the trial, chooses among the GPUs of a node."""
    mixed = division(space(), [node("a", H100, A10), node("b", H100)])
    alone = division(space(), [node("a", A10), node("b", H100)])
    for one, other in zip(mixed.classes, alone.classes, strict=True):
        assert [(p.share, p.trials) for p in one.groups] == [(p.share, p.trials) for p in other.groups]


def test_times_are_measured_on_the_most_frequent_kind_of_gpu() -> None:
    sweep = space("efficiency", tasks="tiny-mnli")
    h200 = ("NVIDIA H200", 141 * GIB)
    nodes = [node("a", h200), node("b", H100), node("c", H100, H100), node("d", A10, A10, A10, A10)]
    chosen = groups(sweep, nodes)
    assert [(p.address, p.share, p.slots) for p in chosen] == [("b", 1.0, 1), ("c", 1.0, 2)]
    (equal,) = groups(sweep, nodes[:2])
    assert equal.address == "a"
    assert groups(sweep, nodes[1:3]) == (NodeGroup(1.0),)
    # GPUs of one model, with some memory reserved on one of them; and a requested share.
    assert groups(sweep, [nodes[1], node("e", (H100[0], H100[1] - 2**27))]) == (NodeGroup(1.0),)
    assert [p.address for p in groups(sweep, nodes, 1.0)] == ["b", "c"]
    # A node whose own GPUs differ is not used to measure times.
    assert [p.address for p in groups(sweep, [node("a", h200, H100, H100), nodes[1]])] == ["b"]


def test_nodes_at_one_address_count_as_one() -> None:
    """What Ray binds to an address may run on any of them."""
    nodes = [Node("a (1)", "a", 1, (H100,)), Node("a (2)", "a", 2, (A10,)), node("b", H100)]
    apart = division(space(), [node("a", A10, cpus=3), node("b", H100)])
    for one, other in zip(division(space(), nodes).classes, apart.classes, strict=True):
        assert [(p.address, p.trials) for p in one.groups] == [(p.address, p.trials) for p in other.groups]
        assert all(group.slots == 2 for group in one.groups if group.address == "a")


def test_a_trial_that_fits_nowhere_is_refused_with_the_number_that_fits() -> None:
    sweep = space(models="gemma-2b")
    nodes = [node("a", A10), node("b", ("small", 8 * GIB))]
    n_fit = sum(need <= 24 * GIB for need in needs(sweep).values())
    largest = max(needs(sweep).values()) / (24 * GIB)
    assert 0 < n_fit < 34
    with pytest.raises(InputError) as error:
        division(sweep, nodes)
    assert str(error.value).startswith(
        f"the largest trial of paper needs {largest:.1f} times the 24 GiB of the largest GPU of this cluster: "
        f"--what-fits runs the {n_fit} of 34 trials that fit; all need fewer models or strategies, "
    )
    with pytest.raises(InputError, match="of the smallest GPU of this cluster: "):
        division(sweep, [node("a", H100, A10)])
    with pytest.raises(InputError, match="none of 34 trials fits, choose fewer models"):
        division(sweep, nodes[1:])
    with pytest.raises(
        InputError, match="--gpus-per-trial 2 is more GPUs than any node has: the maximum is 1"
    ):
        division(space(), [node("a", H100), node("b", H100)], 2.0)
    with pytest.raises(InputError, match="the space paper needs a GPU, but this cluster has none"):
        division(space(), [node("a"), node("b")])


@pytest.mark.parametrize("name", ["paper", "efficiency"])
def test_what_fits_leaves_out_the_rest_with_the_reason(name: str) -> None:
    sweep = space(name, tasks="tiny-mnli", models="gemma-2b,phi-2")
    need = needs(sweep)
    found = division(sweep, [node("a", A10), node("b", ("small", 8 * GIB))], what_fits=True)
    left_out = {factors for factors, size in need.items() if size > 24 * GIB}
    assert set(found.too_large) == left_out != set(need)
    assert frozenset().union(*(each.trials for each in found.classes)) == set(need) - left_out
    for factors, reason in found.too_large.items():
        assert reason == f"needs {need[factors] / GIB:.1f} GiB, the largest GPU has 24.0 GiB"
    assert found.lines[-1].startswith(f"trials that do not fit the GPUs and are skipped: {len(left_out)};")
    smallest = min(need.values()) / GIB
    with pytest.raises(
        InputError, match=f"no trial of {name} fits .* needs {smallest:.1f} GiB, the largest GPU has 8.0"
    ):
        division(sweep, [node("b", ("small", 8 * GIB))], what_fits=True)
    everything = division(sweep, [node("a", H100)], what_fits=True)
    assert everything == division(sweep, [node("a", H100)])


def test_what_fits_a_requested_share() -> None:
    """The share is a wall: its part of the memory decides."""
    sweep, nodes = space(), [node("a", H100)]
    need = needs(sweep)
    found = division(sweep, nodes, 0.5, what_fits=True)
    assert set(found.too_large) == {factors for factors, size in need.items() if size > 40 * GIB} != set()
    assert all(text.endswith(", 0.5 of the largest GPU has 40.0 GiB") for text in found.too_large.values())
    (only,) = found.classes
    assert only.groups == (NodeGroup(0.5),)
    assert division(sweep, nodes, 0.5).too_large == {}
    assert division(sweep, [node("a", H100, H100)], 2.0, what_fits=True).too_large == {}


def test_a_model_without_a_closed_form_needs_a_share(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "albert"}')
    narrow = {"models": ["mine"], "tasks": ["rte"], "seeds": ["42"]}
    folder = {"mine": tmp_path}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reproduce.plan.cost.model_shape", _no_shape)
        for name in ("paper", "efficiency"):
            sweep, nodes = load_space(name, narrow, model_paths=folder, weights="random"), [node("a", H100)]
            with pytest.raises(InputError, match="no closed form, so that --what-fits cannot tell"):
                division(sweep, nodes, what_fits=True)
            assert groups(sweep, nodes, 1.0) == (NodeGroup(1.0),)
        assert groups(sweep, nodes) == (NodeGroup(1.0),)
        with pytest.raises(
            InputError, match="no closed form: set the share of a GPU for each trial with --gpus"
        ):
            division(load_space("paper", narrow, model_paths=folder, weights="random"), nodes)


def _no_shape(card: ModelCard) -> ModelShape:
    raise ShapeError("no closed form")


def test_how_many_run_at_once() -> None:
    cluster = {"CPU": 8.0, "GPU": 2.0}
    assert Resources(1, (NodeGroup(0.25),)).concurrency(cluster) == 8
    assert Resources(2, (NodeGroup(0.0),)).concurrency(cluster) == 4
    assert Resources(1, (NodeGroup(0.25),), 3).concurrency(cluster) == 3
    assert Resources(1, (NodeGroup(1.0, "a", 2), NodeGroup(0.5, "b", 4))).concurrency(cluster) == 6
    with pytest.raises(InputError, match="needs 16 CPUs and 0 GPUs, but this cluster has 8 CPUs"):
        Resources(16, (NodeGroup(0.0),)).concurrency(cluster)
    assert NodeGroup(0.5, "10.0.0.7", 1).resources(2) == {"CPU": 2, "GPU": 0.5, "node:10.0.0.7": 0.001}
