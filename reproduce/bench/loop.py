"""This project's loop against ``transformers.Trainer``: at equal padded work, then each at its best."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from lfreeze.data.encoding import Batch
from lfreeze.recipe import Recipe
from lfreeze.strategy import Strategy
from lfreeze.training.batches import training_batches
from lfreeze.training.record import Step
from reproduce.bench.peer import train_with_trainer
from reproduce.bench.spec import Benchmark, Row, alternating, ratio_row
from reproduce.bench.workbench import LABELS, SEED, Workbench


def run(bench: Workbench) -> list[Row]:
    """One row for each pair of trainings."""
    full = bench.recipe
    longest, bucketed = (replace(full, padding=padding) for padding in ("longest", "bucketed"))
    return [
        compare(bench, "ALL, padded to the full length", "ALL", full, full),
        compare(bench, "ALL, bucketed", "ALL", longest, bucketed),
    ]


def compare(
    bench: Workbench, name: str, strategy: str, their: Recipe, our: Recipe, first_step: int = 2
) -> Row:
    """Trainer's seconds over ours, for the same steps on the same examples.

    Args:
        first_step: earlier steps are not compared.
    """
    pairs = alternating(
        bench.settings.pairs,
        partial(trainer_seconds, bench, strategy, their),
        partial(loop_seconds, bench, strategy, our),
    )
    steps = sorted(
        set.intersection(*(set(seconds) for pair in pairs for seconds in pair)) - {*range(first_step)}
    )
    means = [(_mean(theirs, steps), _mean(ours, steps)) for theirs, ours in pairs]
    ideal = flops(bench, strategy, their, steps) / flops(bench, strategy, our, steps)
    parts = ("trainer_seconds_per_step", "seconds_per_step")
    return ratio_row(name, means, parts, ideal=ideal, steps_compared=len(steps))


def _mean(seconds: Mapping[int, float], steps: Sequence[int]) -> float:
    return sum(seconds[step] for step in steps) / len(steps)


def loop_seconds(bench: Workbench, strategy: str, recipe: Recipe) -> dict[int, float]:
    """By step, the seconds since the end of the one before; memory is profiled in the steps that are left out."""
    moments, seconds = [time.perf_counter()], dict[int, float]()

    def note(step: Step) -> None:
        moments.append(time.perf_counter())
        if step.timed:
            seconds[step.step] = moments[-1] - moments[-2]

    bench.train(strategy, recipe, note)
    return seconds


def trainer_seconds(bench: Workbench, strategy: str, recipe: Recipe) -> dict[int, float]:
    """The same of a Trainer, for every step but the first."""
    moments = train_with_trainer(bench, strategy, recipe)
    return {step: moments[step - 1] - moments[step - 2] for step in range(2, len(moments) + 1)}


def flops(bench: Workbench, strategy: str, recipe: Recipe, steps: Sequence[int]) -> int:
    """The FLOPs of some steps, padding included."""
    batches = training_batches(bench.texts, recipe, SEED)
    return sum(_flops(bench, strategy, recipe, part) for step in steps for part in batches[step - 1])


def _flops(bench: Workbench, strategy: str, recipe: Recipe, batch: Batch) -> int:
    examples, length = batch.input_ids.shape
    cost = Strategy.parse(strategy).cost(
        bench.shape, replace(recipe, batch_size=examples), n_labels=LABELS, length=length
    )
    return cost.forward_flops + cost.backward_flops


BENCHMARK = Benchmark(
    "loop",
    "Time of a step of transformers.Trainer over that of this project's loop, on the same examples; ideal is the ratio "
    "of the FLOPs that both compute.",
    "Trainer's step time over ours",
    run,
)
