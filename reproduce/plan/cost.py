"""The predicted cost of a space, in closed form: memory, GPU share, hours. Starts nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from lfreeze.cost import Cost
from lfreeze.data.tasks import get_task
from lfreeze.errors import InputError
from lfreeze.model_shape import Shape
from lfreeze.models.shapes import model_shape
from lfreeze.recipe import Recipe
from lfreeze.strategy import Strategy
from reproduce.plan.search_space import SearchSpace
from reproduce.plan.spec import Factors

GIB = 2**30
DEVICE = "cuda"  # whose memory is predicted
# Per process: the CUDA context, which torch's allocator does not count.
_CONTEXT_BYTES = int(0.5 * GIB)
_SLACK = 1.15
# Assumed sustained rates if none is given, by precision, in FLOP/s.
ASSUMED_RATES = {"fp32": 0.02e12, "bf16-mixed": 50e12, "bf16": 80e12}
# Typical tokens per pair of texts if batches are padded to their longest: no text is loaded here.
_TINY_LENGTH, _TYPICAL_LENGTH = 24, 96


@dataclass(frozen=True)
class TrialCost:
    """One trial's predicted cost.

    Attributes:
        training_bytes: the peak of the whole run, an adaptive strategy's probe included.
        after_switch_bytes: an adaptive strategy's peak once it has frozen its layers; None for others.
        gpu_share: its part of the assumed GPU.
        seconds: its time of training and evaluation.
    """

    factors: Factors
    frozen_layers: int
    n_layers: int
    static_bytes: int
    training_bytes: int
    after_switch_bytes: int | None
    gpu_share: float
    seconds: float


@dataclass(frozen=True)
class Assumptions:
    """The GPU that predictions assume: its memory, and its sustained rate in FLOP/s."""

    gpu_memory_bytes: int
    flops_per_second: float


def assumptions(space: SearchSpace, gpu_memory_gib: float, tflops: float | None) -> Assumptions:
    """The assumed GPU of a plan; without ``tflops``, the rate of the recipe's precision.

    Raises:
        InputError: a value is not a finite number.
    """
    for option, value in (("--gpu-memory", gpu_memory_gib), ("--tflops", tflops)):
        if value is not None and not math.isfinite(value):
            raise InputError(f"{option} {value} is not a finite number")
    rate = tflops * 1e12 if tflops else ASSUMED_RATES[space.recipe.precision]
    return Assumptions(int(gpu_memory_gib * GIB), rate)


def plan_space(space: SearchSpace, assumed: Assumptions) -> list[TrialCost]:
    """Every trial of a space with its predicted cost, in the order of running."""
    shapes = {name: model_shape(card.config, DEVICE) for name, card in space.cards.items()}
    return [_plan(factors, shapes[factors.model], space.recipe, assumed) for factors in space.factors()]


def gpu_share(peak_bytes: int, gpu_memory_bytes: int) -> float:
    """A trial's share of a GPU: 1/n, so that n equal trials fill it; above 1 the trial does not fit."""
    needed = (peak_bytes * _SLACK + _CONTEXT_BYTES) / gpu_memory_bytes
    if needed > 1:
        return needed
    return int(1e4 / int(1 / needed)) / 1e4


def largest_share(space: SearchSpace, gpu_memory_bytes: int) -> float:
    """The share that fits the space's most demanding trial; all trials have this share, so that workers can be reused."""
    assumed = Assumptions(gpu_memory_bytes, 1.0)
    return max(trial.gpu_share for trial in plan_space(space, assumed))


def _plan(factors: Factors, shape: Shape, recipe: Recipe, assumed: Assumptions) -> TrialCost:
    train, peak, evaluation_flops = _cost(shape, factors.task, factors.strategy, recipe)
    flops = recipe.steps * (train.forward_flops + train.backward_flops) + evaluation_flops
    strategy = Strategy.parse(factors.strategy)
    return TrialCost(
        factors,
        frozen_layers=strategy.frozen_count(shape.n_layers),
        n_layers=shape.n_layers,
        static_bytes=train.weights_bytes,
        training_bytes=peak.training_bytes,
        after_switch_bytes=train.training_bytes if strategy.implementation.adaptive else None,
        gpu_share=gpu_share(peak.weights_bytes + peak.training_bytes, assumed.gpu_memory_bytes),
        seconds=flops / assumed.flops_per_second,
    )


@cache
def _cost(shape: Shape, task_name: str, strategy: str, recipe: Recipe) -> tuple[Cost, Cost, float]:
    """A training step's cost, that of the phase with the highest peak, and the FLOPs of the evaluation."""
    task = get_task(task_name)
    length = min(recipe.max_length, _TINY_LENGTH if task.tiny else _TYPICAL_LENGTH)
    if recipe.padding == "max_length":
        length = recipe.max_length
    parsed, n_labels = Strategy.parse(strategy), len(task.labels)
    cost = parsed.cost(shape, recipe, n_labels=n_labels, length=length)
    peak = parsed.peak_cost(shape, recipe, n_labels=n_labels, length=length)
    n_validation = min(task.n_validation, recipe.max_validation_examples or task.n_validation)
    return cost, peak, cost.forward_flops / recipe.batch_size * n_validation


def totals(trials: Iterable[TrialCost]) -> dict[str, float]:
    """The number of trials, their device hours one after another, and the largest peak in bytes."""
    trials = list(trials)
    return {
        "trials": len(trials),
        "device_hours": sum(t.seconds for t in trials) / 3600,
        "peak_bytes": max(t.static_bytes + t.training_bytes for t in trials),
    }
