"""Seconds and FLOPs of single training steps, so that two ways of training the same batches can be compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from lfreeze.cost import cost
from lfreeze.data.encoding import Batch
from lfreeze.recipe import Recipe
from lfreeze.strategy import Strategy
from lfreeze.training.batches import training_batches
from lfreeze.training.record import Step
from reproduce.bench.spec import Row, alternating, ratio_row
from reproduce.bench.workbench import LABELS, SEED, Workbench

# By step, its seconds.
StepSeconds = Callable[[Workbench, str, Recipe], dict[int, float]]


def compare(
    bench: Workbench,
    name: str,
    strategy: str,
    their: tuple[str, StepSeconds, Recipe],
    our: tuple[str, StepSeconds, Recipe],
) -> Row:
    """Their seconds over ours, for the same steps on the same examples; the first step, which warms up, is left out.

    Args:
        their, our: a name for the table, how the steps are timed, and the recipe.
    """
    pairs = alternating(
        bench.settings.pairs, *(partial(timed, bench, strategy, recipe) for _, timed, recipe in (their, our))
    )
    steps = sorted(set.intersection(*({*seconds} - {1} for pair in pairs for seconds in pair)))
    means = [(_mean(theirs, steps), _mean(ours, steps)) for theirs, ours in pairs]
    ideal = flops(bench, strategy, their[2], steps) / flops(bench, strategy, our[2], steps)
    parts = (f"{their[0]}_seconds_per_step", f"{our[0]}_seconds_per_step")
    return ratio_row(name, means, parts, ideal=ideal, steps_compared=len(steps))


def loop_seconds(bench: Workbench, strategy: str, recipe: Recipe) -> dict[int, float]:
    """By step of this project's loop, the seconds since the end of the one before.

    Steps in which memory is profiled are left out. The states of a cached prefix are computed before the first step.
    """
    moments, seconds = [time.perf_counter()], dict[int, float]()

    def note(step: Step) -> None:
        moments.append(time.perf_counter())
        if step.timed:
            seconds[step.step] = moments[-1] - moments[-2]

    bench.train(strategy, recipe, note)
    return seconds


def flops(bench: Workbench, strategy: str, recipe: Recipe, steps: Sequence[int]) -> int:
    """The FLOPs of some steps in closed form, padding included and cached layers left out."""
    batches = training_batches(bench.texts, recipe, SEED)
    return sum(_flops(bench, strategy, recipe, part) for step in steps for part in batches[step - 1])


def _flops(bench: Workbench, strategy: str, recipe: Recipe, batch: Batch) -> int:
    """Of one batch of padded rows."""
    examples, length = batch.input_ids.shape
    shape = bench.shape
    step = Strategy.parse(strategy).cost(
        shape, replace(recipe, batch_size=examples), n_labels=LABELS, length=length
    )
    done = step.forward_flops + step.backward_flops
    if recipe.prefix_cache == "all":
        skipped = replace(shape, n_layers=shape.n_layers - step.backward_depth)
        done -= cost(
            skipped, (), embeddings_frozen=True, n_labels=0, batch_size=examples, length=length
        ).forward_flops
    return done


def _mean(seconds: Mapping[int, float], steps: Sequence[int]) -> float:
    return sum(seconds[step] for step in steps) / len(steps)
