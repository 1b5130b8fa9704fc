"""Micro-batches against brute force over every split."""

from __future__ import annotations

import itertools
import random

import pytest

from lfreeze.data.buckets import micro_batches


def cost(groups: list[list[int]], lengths: list[int], launch: int) -> int:
    return sum(len(group) * max(lengths[i] for i in group) + launch for group in groups)


@pytest.mark.parametrize("launch", [0, 5, 40])
def test_no_split_costs_less(launch: int) -> None:
    chance = random.Random(launch)
    for _ in range(20):
        lengths = [chance.randrange(1, 30) for _ in range(7)]
        groups = micro_batches(lengths, launch)
        assert sorted(itertools.chain(*groups)) == list(range(7))
        # Every assignment of the seven examples to at most four groups, consecutive or not.
        best = min(
            cost([g for k in range(4) if (g := [i for i in range(7) if chosen[i] == k])], lengths, launch)
            for chosen in itertools.product(range(4), repeat=7)
        )
        assert cost(groups, lengths, launch) <= best


def test_the_order_is_by_length_then_by_place() -> None:
    assert micro_batches([9, 3, 9, 3], 1) == [[1, 3], [0, 2]]
    assert micro_batches([4, 4, 4], 100) == [[0, 1, 2]]
    assert micro_batches([]) == []
