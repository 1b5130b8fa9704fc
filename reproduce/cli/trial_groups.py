"""Trials in a few lines: each line a product of models, tasks, strategies, seeds and grid points."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import Any

from reproduce.plan.spec import Factors, point_text

# A product of values: for each axis the values of a group of trials.
_Box = tuple[tuple[Any, ...], ...]
_AXES = ("models", "tasks", "strategies", "seeds", "grid points")
_SEEDS = _AXES.index("seeds")


def grouped(trials: Iterable[Factors], among: Iterable[Factors]) -> list[tuple[str, int]]:
    """The trials in few lines, each with the number of its trials; every trial is in one of them.

    Args:
        among: all trials, so that a line can say "all 5 tasks" or "all but LoRA".
    """
    boxes = [tuple((value,) for value in _values(trial)) for trial in trials]
    axes = [tuple(dict.fromkeys(values)) for values in zip(*map(_values, among), strict=True)]
    shortest = _shortest(boxes, tuple(range(len(_AXES))))
    return [(_words(box, axes), math.prod(map(len, box))) for box in shortest]


def _values(trial: Factors) -> tuple[Any, ...]:
    return trial.model, trial.task, trial.strategy, trial.seed, point_text(trial.grid)


def _shortest(boxes: Sequence[_Box], axes: tuple[int, ...]) -> Sequence[_Box]:
    """The fewest groups that joining along one axis after another gives, over all orders of the axes."""
    if len(boxes) < 2 or not axes:
        return boxes
    orders = (_shortest(_joined(boxes, a), tuple(b for b in axes if b != a)) for a in axes)
    return min(orders, key=len)


def _joined(boxes: Iterable[_Box], axis: int) -> list[_Box]:
    """Groups that differ along one axis only, joined."""
    found: dict[_Box, list[Any]] = {}
    for box in boxes:
        found.setdefault((*box[:axis], *box[axis + 1 :]), []).extend(box[axis])
    return [(*rest[:axis], tuple(values), *rest[axis:]) for rest, values in found.items()]


def _words(box: _Box, axes: Sequence[Collection[Any]]) -> str:
    parts = [_listed(axis, chosen, every) for axis, (chosen, every) in enumerate(zip(box, axes, strict=True))]
    return " / ".join(part for part in parts if part)


def _listed(axis: int, chosen: Sequence[Any], every: Collection[Any]) -> str:
    name = _AXES[axis]
    if len(chosen) == len(every) > 1:
        return f"all {len(every):,} {name}"
    others = [value for value in every if value not in chosen]
    if axis == _SEEDS:
        return f"{name if len(chosen) > 1 else name[:-1]} {_ranges(sorted(chosen))}"
    return f"all {name} but {', '.join(others)}" if len(others) < len(chosen) - 1 else ", ".join(chosen)


def _ranges(numbers: Sequence[int]) -> str:
    """``42-44, 50``."""
    runs = [
        [number for _, number in run]
        for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])
    ]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)
