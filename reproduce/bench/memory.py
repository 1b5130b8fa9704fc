"""Peak training memory, measured, over its closed form: every strategy of the paper, every padding."""

from __future__ import annotations

from dataclasses import replace

from lfreeze.recipe import CHOICES
from lfreeze.strategy import Strategy, paper_strategies
from reproduce.bench.spec import Benchmark, Row
from reproduce.bench.workbench import LABELS, Workbench

STEPS = 5  # the probe's two, the first after it, and one whose memory is measured


def run(bench: Workbench) -> list[Row]:
    """One row for each strategy and padding."""
    return [
        measure(bench, strategy, padding) for strategy in paper_strategies() for padding in CHOICES["padding"]
    ]


def measure(bench: Workbench, strategy: str, padding: str) -> Row:
    """The peak of one run above the model's static memory, over that of its largest micro-batch in closed form."""
    recipe = replace(bench.recipe, padding=padding, steps=STEPS)
    record = bench.train(strategy, recipe)
    measured = max(use.training for use in (record.memory, record.probe_memory) if use)
    examples, length = record.largest_micro_batch
    predicted = Strategy.parse(strategy).peak_cost(
        bench.shape, replace(recipe, batch_size=examples), n_labels=LABELS, length=length
    )
    values = {"training_bytes": measured, "predicted_training_bytes": predicted.training_bytes}
    return Row(strategy, (measured / predicted.training_bytes,), 1.0, padding, values)


BENCHMARK = Benchmark(
    "memory",
    "Peak training memory of a run over the closed form for its largest micro-batch.",
    "measured training memory over predicted",
    run,
)
