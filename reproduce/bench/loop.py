"""This project's loop against ``transformers.Trainer``: at equal padded work, then each at its best."""

from __future__ import annotations

from dataclasses import replace

from lfreeze.recipe import Recipe
from reproduce.bench.peer import trainer_moments
from reproduce.bench.spec import Benchmark, Row
from reproduce.bench.steps import compare, loop_seconds
from reproduce.bench.workbench import Workbench


def run(bench: Workbench) -> list[Row]:
    """One row for each pair of trainings."""
    full = bench.recipe
    longest, bucketed = (replace(full, padding=padding) for padding in ("longest", "bucketed"))
    cached = replace(bucketed, prefix_cache="all")
    return [
        against_trainer(bench, "ALL, padded to the full length", "ALL", full, full),
        against_trainer(bench, "ALL, bucketed", "ALL", longest, bucketed),
        against_trainer(bench, "BOT50, bucketed, prefix cached", "BOT50", longest, cached),
        against_trainer(bench, "BOT75, bucketed, prefix cached", "BOT75", longest, cached),
    ]


def against_trainer(bench: Workbench, name: str, strategy: str, their: Recipe, our: Recipe) -> Row:
    """Trainer's step time over that of this project's loop."""
    sides = ("trainer", trainer_seconds, their), ("loop", loop_seconds, our)
    return compare(bench, name, strategy, *sides)


def trainer_seconds(bench: Workbench, strategy: str, recipe: Recipe) -> dict[int, float]:
    """By step of a Trainer, the seconds since the end of the one before; of every step but the first."""
    moments = trainer_moments(bench, strategy, recipe)
    return {step: moments[step - 1] - moments[step - 2] for step in range(2, len(moments) + 1)}


BENCHMARK = Benchmark(
    "loop",
    "Time of a step of transformers.Trainer over that of this project's loop, on the same examples; ideal is the ratio "
    "of the FLOPs that both compute.",
    "Trainer's step time over ours",
    run,
)
