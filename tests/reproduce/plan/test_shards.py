"""The parts of a space: disjoint, complete, about equal, and the same in every selection of it."""

from __future__ import annotations

import statistics

import pytest

from lfreeze.errors import InputError
from reproduce.plan.inputs import find_inputs, trial_specs
from reproduce.plan.search_space import load_space
from reproduce.plan.shards import Shard, parse_shard
from reproduce.plan.spec import TrialSpec


def specs(**axes: str) -> list[TrialSpec]:
    space = load_space("embedded", {name: items.split(",") for name, items in axes.items()})
    return trial_specs(space, find_inputs(space))


@pytest.fixture(scope="module")
def space() -> list[TrialSpec]:
    return specs(seeds="1,2,3,4,5,6,7,8,9")


@pytest.mark.parametrize(
    "text", ["9/8", "0/3", "x/y", "3", "3/", "/3", "-1/3", "1/0", "1/3/5", "１/3", "", " 1/3"]
)
def test_what_is_no_part_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_shard(text)
    assert str(raised.value) == f"--shard {text!r} is not I/N with I from 1 to N, such as 3/8"


def test_the_first_and_the_last_part_are_accepted() -> None:
    assert parse_shard("1/8") == Shard(1, 8)
    assert parse_shard("8/8") == Shard(8, 8)
    assert parse_shard(None) is None


@pytest.mark.parametrize("count", [1, 2, 60])
def test_every_trial_is_in_one_part_in_the_order_of_running(space: list[TrialSpec], count: int) -> None:
    positions = {spec: position for position, spec in enumerate(space)}
    parts = [[positions[spec] for spec in Shard(index, count).of(space)] for index in range(1, count + 1)]
    assert sorted(position for part in parts for position in part) == list(range(len(space)))
    assert all(part == sorted(part) for part in parts)


def test_parts_have_about_the_same_size(space: list[TrialSpec]) -> None:
    """As many as chance gives them: within four standard deviations, and not all equal."""
    sizes = [len(Shard(index, 6).of(space)) for index in range(1, 7)]
    mean = len(space) / 6
    assert len(space) == 306
    assert all(abs(size - mean) < 4 * (mean * 5 / 6) ** 0.5 for size in sizes)
    assert statistics.stdev(sizes) > 0


def test_trials_that_are_added_or_left_out_move_no_other(space: list[TrialSpec]) -> None:
    narrow = specs(strategies="BOT50,LoRA", seeds="3,7")
    wide = specs(seeds="1,2,3,4,5,6,7,8,9,10,11")
    for index in range(1, 9):
        part = set(Shard(index, 8).of(space))
        assert set(Shard(index, 8).of(narrow)) == part & set(narrow)
        assert set(Shard(index, 8).of(wide)) & set(space) == part


def test_the_run_id_alone_decides(space: list[TrialSpec]) -> None:
    """The published assignment, so that a later version continues the jobs of this one."""
    for spec in space[:40]:
        (index,) = [index for index in range(1, 9) if spec in Shard(index, 8).of([spec])]
        assert index == int(spec.run_id[-1], 16) % 8 + 1
