"""The predicted cost of a space, in closed form: memory, GPU share, hours. Starts nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

from lfreeze.cost import Cost
from lfreeze.data.tasks import Task
from lfreeze.errors import InputError
from lfreeze.model_shape import BYTES, COMPUTE_BYTES, has_formula
from lfreeze.models import shapes
from lfreeze.models.attempt import attempt_config
from lfreeze.models.catalog import ModelCard
from lfreeze.recipe import Recipe
from lfreeze.shape import Shape
from lfreeze.strategy import Strategy
from reproduce.plan.devices import CPU_CORE, DEFAULT, get_device
from reproduce.plan.lengths import BatchWork, KnownLengths, batch_work
from reproduce.plan.search_space import SearchSpace
from reproduce.plan.spec import Factors

GIB = 2**30
DEVICE = "cuda"  # whose memory is predicted
# Per process: the CUDA context, which torch's allocator does not count.
_CONTEXT_BYTES = int(0.5 * GIB)
_SLACK = 1.15
# Set-up and gap between two trials of a worker: the sum of their medians over the warm trials of
# artifacts/reference/embedded-full, tiny models on a CPU. Moving the weights of a large model comes on top.
_FIXED_SECONDS = 0.07
# Of a dataset on the hub that has not been read.
_ASSUMED_LABELS = 2


@dataclass(frozen=True)
class TrialCost:
    """One trial's predicted cost.

    Attributes:
        training_bytes: the peak of the whole run, an adaptive strategy's probe included.
        after_switch_bytes: an adaptive strategy's peak once it has frozen its layers; None for others.
        gpu_share: its part of the assumed GPU.
        seconds: its time of training and evaluation, and the fixed time between two trials.
        host_bytes: memory of the host that its worker needs beside the device's: the weights while they are
            loaded, an adaptive strategy's snapshot of the layers, and the output of frozen layers that the prefix
            cache keeps.
    """

    factors: Factors
    frozen_layers: int
    n_layers: int
    static_bytes: int
    training_bytes: int
    after_switch_bytes: int | None
    gpu_share: float
    seconds: float
    host_bytes: int


@dataclass(frozen=True)
class Assumptions:
    """The device that predictions assume: its memory, its sustained rate in FLOP/s, and where the rate is from."""

    gpu_memory_bytes: int
    flops_per_second: float
    rate_source: str = ""


def assumptions(
    space: SearchSpace,
    gpu_memory_gib: float | None = None,
    tflops: float | None = None,
    gpu: str | None = None,
) -> Assumptions:
    """The assumed device of a plan.

    Args:
        gpu: a name of ``reproduce.plan.devices``; by default an H100, or one core of a CPU for fp32.
        gpu_memory_gib, tflops: these instead of the device's own.

    Raises:
        InputError: a value is not a finite number, or no device has the name.
    """
    for option, value in (("--gpu-memory", gpu_memory_gib), ("--tflops", tflops)):
        if value is not None and not math.isfinite(value):
            raise InputError(f"{option} {value} is not a finite number")
    precision = space.recipe.precision
    device = get_device(gpu) if gpu is not None else CPU_CORE if precision == "fp32" else DEFAULT
    return Assumptions(
        int((gpu_memory_gib or device.memory_gib) * GIB),
        tflops * 1e12 if tflops else device.rate(precision),
        "--tflops" if tflops else device.name,
    )


def plan_space(
    space: SearchSpace, assumed: Assumptions, lengths: KnownLengths | None = None
) -> list[TrialCost]:
    """Every trial of a space with its predicted cost, in the order of running.

    Args:
        lengths: tokens of the training examples where they are known; typical ones are assumed elsewhere.
    """
    sizes = {name: model_shape(card) for name, card in space.cards.items()}
    known = lengths or {}
    return [
        _plan(
            factors,
            sizes[factors.model],
            space.tasks[factors.task],
            recipe,
            batch_work(
                space.tasks[factors.task],
                recipe,
                known.get((factors.model, factors.task)),
                exact=space.cards[factors.model].tiny and space.tasks[factors.task].tiny,
            ),
            assumed,
        )
        for factors in space.factors()
        for recipe in [space.recipes[factors.grid]]
    ]


def gpu_share(peak_bytes: int, gpu_memory_bytes: int) -> float:
    """A trial's share of a GPU: 1/n, so that n equal trials fill it; above 1 the trial does not fit."""
    needed = (peak_bytes * _SLACK + _CONTEXT_BYTES) / gpu_memory_bytes
    if needed > 1:
        return needed
    return int(1e4 / int(1 / needed)) / 1e4


def model_shape(card: ModelCard) -> Shape:
    """A model's sizes, from its configuration, for training on CUDA.

    Raises:
        ShapeError: its memory cannot be predicted.
        ModelError: its configuration cannot be read, or describes no model that can be built.
    """
    config = card.config
    if not card.known and not has_formula(config):
        attempt_config(card.name, card.config_file)
    return shapes.model_shape(config, DEVICE)


def _plan(
    factors: Factors, shape: Shape, task: Task, recipe: Recipe, work: BatchWork, assumed: Assumptions
) -> TrialCost:
    train, after, peak, evaluation_flops = _cost(shape, task, factors.strategy, recipe, work)
    flops = recipe.steps * (train.forward_flops + train.backward_flops) + evaluation_flops
    strategy = Strategy.parse(factors.strategy)
    adaptive = strategy.implementation.adaptive and not strategy.implementation.redraws
    return TrialCost(
        factors,
        frozen_layers=strategy.frozen_count(shape.n_layers),
        n_layers=shape.n_layers,
        static_bytes=train.weights_bytes,
        training_bytes=peak.training_bytes,
        after_switch_bytes=after.training_bytes if adaptive else None,
        gpu_share=gpu_share(peak.weights_bytes + peak.training_bytes, assumed.gpu_memory_bytes),
        seconds=flops / assumed.flops_per_second + _FIXED_SECONDS,
        host_bytes=train.weights_bytes
        + (_snapshot_bytes(shape, recipe) if adaptive else 0)
        + (_prefix_bytes(shape, task, recipe, work) if after.backward_depth < shape.n_layers else 0),
    )


def _snapshot_bytes(shape: Shape, recipe: Recipe) -> int:
    """The layers' parameters in the type in which they train."""
    return BYTES[recipe.precision] * sum(layer.parameters for layer in shape.layers)


def _prefix_bytes(shape: Shape, task: Task, recipe: Recipe, work: BatchWork) -> int:
    """The output of the frozen layers below the first that trains, of all texts that are trained and evaluated on."""
    if recipe.prefix_cache == "off":
        return 0
    examples = _n_validation(task, recipe)
    if recipe.prefix_cache == "all":
        available = min(task.n_train, recipe.max_train_examples or task.n_train)
        examples += min(available, recipe.steps * recipe.batch_size)
    # The first linear map of a layer reads the hidden states.
    hidden_size = shape.linears[0][1]
    return COMPUTE_BYTES[recipe.precision] * examples * work.evaluated * hidden_size


def _n_validation(task: Task, recipe: Recipe) -> int:
    return min(task.n_validation, recipe.max_validation_examples or task.n_validation)


@cache
def _cost(
    shape: Shape, task: Task, strategy: str, recipe: Recipe, work: BatchWork
) -> tuple[Cost, Cost, Cost, float]:
    """A training step's cost; its largest micro-batch's, once layers are selected and at the highest peak; FLOPs of all evaluations."""
    parsed, n_labels = Strategy.parse(strategy), len(task.labels) or _ASSUMED_LABELS
    step = parsed.cost(shape, recipe, n_labels=n_labels, length=work.length)
    examples, length = work.largest
    part = replace(recipe, batch_size=examples, micro_batch_size=0)
    several = examples < recipe.batch_size
    after = replace(parsed.cost(shape, part, n_labels=n_labels, length=length), accumulated=several)
    peak = replace(parsed.peak_cost(shape, part, n_labels=n_labels, length=length), accumulated=several)
    evaluated = parsed.cost(shape, recipe, n_labels=n_labels, length=work.evaluated)
    times = math.ceil(recipe.steps / recipe.evaluate_every) if recipe.evaluate_every else 1
    return (
        step,
        after,
        peak,
        times * evaluated.forward_flops / recipe.batch_size * _n_validation(task, recipe),
    )


def totals(trials: Iterable[TrialCost]) -> dict[str, float]:
    """The number of trials, their device hours one after another, the largest peak and host memory of one, in bytes."""
    trials = list(trials)
    return {
        "trials": len(trials),
        "device_hours": sum(t.seconds for t in trials) / 3600,
        "peak_bytes": max(t.static_bytes + t.training_bytes for t in trials),
        "host_bytes": max(t.host_bytes for t in trials),
    }
