"""Step time of static strategies over ALL's, against the ratio of their FLOPs."""

from __future__ import annotations

from dataclasses import replace

from lfreeze.strategy import Strategy
from reproduce.bench.spec import Benchmark, Row, alternating, ratio_row
from reproduce.bench.workbench import LABELS, Workbench

STEPS = 5  # the first warms up, and memory is profiled in the last
STRATEGIES = ("BOT25", "BOT50", "BOT75", "TOP25", "TOP50", "TOP75", "INT25", "INT33", "INT50", "LoRA")


def run(bench: Workbench) -> list[Row]:
    """One row for each strategy."""
    recipe = replace(bench.recipe, steps=STEPS)

    def step_seconds(strategy: str) -> float:
        return bench.train(strategy, recipe).step_quartiles()[1]

    def cost(strategy: str):  # type: ignore[no-untyped-def]
        return Strategy.parse(strategy).cost(bench.shape, recipe, n_labels=LABELS, length=recipe.max_length)

    rows = []
    for name in STRATEGIES:
        pairs = alternating(bench.settings.pairs, lambda: step_seconds(name), lambda: step_seconds("ALL"))  # noqa: B023
        ideal = cost(name).step_time_ratio(cost("ALL"))
        rows.append(ratio_row(name, pairs, ("step_seconds", "step_seconds_of_ALL"), ideal=ideal))
    return rows


BENCHMARK = Benchmark(
    "strategies",
    "Step time of each strategy over that of ALL, every batch padded to the full length; ideal is the ratio of FLOPs.",
    "step time over ALL's",
    run,
)
