"""The trials of a space in classes by their share of a GPU: 1, 1/2, 1/3, …, run one class after another.

Trials with different shares never run on a node at the same time. Ray packs fractions of a GPU, so that two
trials of one half fill one GPU while the next idles, and mixed fractions leave rests that no trial fits into
(https://github.com/ray-project/ray/issues/52133).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from reproduce.plan.cost import TrialCost
from reproduce.plan.spec import Factors

# The kernels of several processes take turns on a GPU, while each process has a CUDA context on it, a copy of its
# model on the host, and a start-up time: beyond a few, more processes cost more than they add.
MOST_PER_GPU = 8


@dataclass(frozen=True)
class GpuClass:
    """Trials that run at the same time.

    Attributes:
        per_gpu: how many of them share one GPU.
    """

    per_gpu: int
    trials: tuple[TrialCost, ...]

    @property
    def share(self) -> float:
        """The part of a GPU that each trial has."""
        return share_of(self.per_gpu)

    @property
    def words(self) -> str:
        """The share, as ``1/3``."""
        return words_of(self.share)

    @property
    def factors(self) -> frozenset[Factors]:
        return frozenset(trial.factors for trial in self.trials)


def gpu_classes(trials: Iterable[TrialCost], *, exclusive: bool) -> tuple[GpuClass, ...]:
    """The trials that fit the GPU they were planned for, by their share of it, the largest share first.

    Args:
        exclusive: whether each trial has a GPU to itself, whatever it needs: one class.
    """
    by_number: dict[int, list[TrialCost]] = defaultdict(list)
    for trial in trials:
        if fits(trial):
            by_number[1 if exclusive else per_gpu(trial.gpu_share)].append(trial)
    return tuple(GpuClass(n, tuple(members)) for n, members in sorted(by_number.items()))


def fits(trial: TrialCost) -> bool:
    """Whether a trial fits the GPU that it was planned for."""
    return trial.gpu_share <= 1


def per_gpu(share: float) -> int:
    """How many trials that need this share run on one GPU."""
    return min(int(1 / share), MOST_PER_GPU)


def share_of(number: int) -> float:
    """One n-th of a GPU, rounded down to the four digits that Ray keeps, so that n of them are at most 1."""
    return math.floor(1e4 / number) / 1e4


def words_of(share: float) -> str:
    """A share as ``1/3``, or as a number if it is no n-th."""
    number = max(round(1 / share), 1)
    if share_of(number) != share:
        return f"{share:g}"
    return f"1/{number}" if number > 1 else "1"
