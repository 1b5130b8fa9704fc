"""The classes in which trials share a GPU, against shares that are set by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reproduce.plan.cost import TrialCost, assumptions, plan_space
from reproduce.plan.gpu_classes import MOST_PER_GPU, fits, gpu_classes, per_gpu, share_of
from reproduce.plan.search_space import load_space


def trials(*shares: float) -> list[TrialCost]:
    space = load_space("paper", {"models": ["phi-2"], "tasks": ["rte"], "seeds": ["42"]})
    planned = plan_space(space, assumptions(space, 80, None))
    return [replace(trial, gpu_share=share) for trial, share in zip(planned, shares, strict=False)]


def test_the_largest_share_comes_first_and_each_trial_is_in_one_class() -> None:
    shares = (0.3333, 1.0, 0.01, 0.5, 1.7, 0.5, 0.2, 1.0, 0.125)
    given = trials(*shares)
    classes = gpu_classes(given, exclusive=False)
    assert [each.per_gpu for each in classes] == [1, 2, 3, 5, 8]
    members = [[given.index(trial) for trial in each.trials] for each in classes]
    # In the order of running; what needs less than an eighth has an eighth, what needs more than 1 has no class.
    assert members == [[1, 7], [3, 5], [0], [6], [2, 8]]
    assert [fits(trial) for trial in given] == [share <= 1 for share in shares]


def test_an_exclusive_space_has_one_class_of_whole_gpus() -> None:
    given = trials(0.25, 1.0, 1.2, 0.5)
    (only,) = gpu_classes(given, exclusive=True)
    assert (only.per_gpu, only.share) == (1, 1.0)
    assert only.factors == {given[i].factors for i in (0, 1, 3)}
    assert gpu_classes(trials(1.2), exclusive=True) == gpu_classes([], exclusive=False) == ()


@pytest.mark.parametrize("number", range(1, MOST_PER_GPU + 1))
def test_a_whole_number_of_trials_fills_a_gpu(number: int) -> None:
    share = share_of(number)
    assert share == round(share, 4)
    assert number * share <= 1 < (number + 1) * share
    assert per_gpu(share) == number
