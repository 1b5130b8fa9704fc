"""Step time of static strategies over ALL's, against the ratio of their FLOPs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from lfreeze.cost import Cost
from lfreeze.recipe import Recipe
from lfreeze.strategy import Strategy
from reproduce.bench.spec import Benchmark, Row, alternating, ratio_row
from reproduce.bench.workbench import LABELS, Workbench

STEPS = 5  # the first warms up, and memory is profiled in the last
STRATEGIES = ("BOT25", "BOT50", "BOT75", "TOP25", "TOP50", "TOP75", "INT25", "INT33", "INT50", "LoRA")


def run(bench: Workbench) -> list[Row]:
    """One row for each strategy."""
    recipe, n = replace(bench.recipe, steps=STEPS), bench.settings.pairs
    all_layers = step_cost(bench, recipe, "ALL")
    rows = []
    for name in STRATEGIES:
        pairs = alternating(
            n, partial(step_seconds, bench, recipe, name), partial(step_seconds, bench, recipe, "ALL")
        )
        ideal = step_cost(bench, recipe, name).step_time_ratio(all_layers)
        rows.append(ratio_row(name, pairs, ("step_seconds", "step_seconds_of_ALL"), ideal=ideal))
    return rows


def step_seconds(bench: Workbench, recipe: Recipe, strategy: str) -> float:
    """The median of a trial's timed steps."""
    median = bench.train(strategy, recipe).step_quartiles()[1]
    assert median is not None, "the recipe of a benchmark times steps"
    return median


def step_cost(bench: Workbench, recipe: Recipe, strategy: str) -> Cost:
    """What a step computes, in closed form."""
    return Strategy.parse(strategy).cost(bench.shape, recipe, n_labels=LABELS, length=recipe.max_length)


BENCHMARK = Benchmark(
    "strategies",
    "Step time of each strategy over that of ALL, every batch padded to the full length; ideal is the ratio of FLOPs.",
    "step time over ALL's",
    run,
)
