"""Frozen layers computed once for each example: evaluation and training with ``prefix_cache`` over the plain path."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

from lfreeze.cost import cost
from lfreeze.freezing import freeze
from lfreeze.model_shape import ModelShape
from lfreeze.recipe import Recipe
from lfreeze.training.batches import evaluation_batches
from lfreeze.training.evaluation import evaluate
from lfreeze.training.prefix import Prefix, trial_prefix
from lfreeze.training.prefix_store import PrefixStore
from reproduce.bench.spec import Benchmark, Row, alternating, ratio_row
from reproduce.bench.steps import compare, loop_seconds
from reproduce.bench.workbench import LABELS, SEED, Workbench

_EVALUATED = "BOT75"
_TRAINED = ("BOT50", "BOT75")


def run(bench: Workbench) -> list[Row]:
    """One row for evaluation, one for the training steps of each strategy."""
    plain = replace(bench.recipe, padding="bucketed")
    cached = replace(plain, prefix_cache="all")
    sides = ("plain", loop_seconds, plain), ("cached", loop_seconds, cached)
    return [
        evaluation(bench, cached),
        *(compare(bench, f"{strategy}, training step", strategy, *sides) for strategy in _TRAINED),
    ]


def evaluation(bench: Workbench, recipe: Recipe) -> Row:
    """Seconds of an evaluation of the whole validation split, over those of one whose states are kept already."""
    model = bench.base.reset(SEED)
    plan = freeze(model, _EVALUATED)
    model.eval()
    prefix = trial_prefix(model, plan, bench.texts, recipe, bench.device, PrefixStore())
    assert prefix is not None
    measure = partial(_evaluation_seconds, bench, recipe)
    filling = measure(prefix)
    pairs = alternating(bench.settings.pairs, partial(measure, None), partial(measure, prefix))

    def forward(shape: ModelShape) -> int:
        return sum(
            cost(
                shape, (), embeddings_frozen=True, n_labels=LABELS, batch_size=len(batch.labels),
                length=batch.input_ids.shape[1],
            ).forward_flops
            for batch in evaluation_batches(bench.texts.validation, bench.texts.pad_token_id, recipe)
        )  # fmt: skip

    shape = bench.shape
    ideal = forward(shape) / forward(replace(shape, n_layers=plan.backward_depth))
    return ratio_row(
        f"{_EVALUATED}, evaluation",
        pairs,
        ("plain_seconds", "cached_seconds"),
        ideal=ideal,
        first_evaluation_seconds=filling,
        examples=len(bench.texts.validation),
    )


def _evaluation_seconds(bench: Workbench, recipe: Recipe, prefix: Prefix | None) -> float:
    started = time.perf_counter()
    evaluate(bench.base.model, bench.texts.validation, recipe, bench.texts.pad_token_id, bench.device, prefix)
    return time.perf_counter() - started


BENCHMARK = Benchmark(
    "prefix",
    "Time of an evaluation and of a training step without a cached prefix over that with one, both bucketed, once the "
    "states are kept; ideal is the ratio of FLOPs.",
    "time without the cache over time with it",
    run,
)
