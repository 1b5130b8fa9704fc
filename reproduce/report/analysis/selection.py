"""Which layers adaptive strategies froze, how clear-cut the choice was, and how well seeds agree."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import cache
from itertools import combinations
from typing import Any

import polars as pl

from lfreeze.strategy import kinds
from reproduce.report.analysis.aggregates import DIGITS, EXPERIMENT, one_per_cell
from reproduce.report.strategy_order import in_order

_SCHEMA = {
    "model": pl.String,
    "strategy": pl.String,
    "layer": pl.Int64,
    "share": pl.Float64,
    "decisiveness": pl.Float64,
    "decisiveness_q25": pl.Float64,
    "decisiveness_q75": pl.Float64,
    "n_decisiveness": pl.Int64,
    "even": pl.Float64,
    "agreement": pl.Float64,
    "agreement_random": pl.Float64,
    "n_pairs": pl.Int64,
    "n_tasks": pl.Int64,
    "n": pl.Int64,
}
# At most so many seeds of an experiment are compared: the number of pairs grows with their square.
_MOST_SEEDS = 20


def selection_data(trials: pl.DataFrame) -> pl.DataFrame:
    """The layers that adaptive strategies froze: one row for each model, strategy and layer (from 1).

    ``share``, a fraction of 1, is that of the ``n`` trials, over tasks and seeds, in which the layer
    was frozen; the other columns are the same in all rows of a strategy on a model. ``decisiveness``: median
    and quartiles over ``n_decisiveness`` trials (see the function of that name), ``even``: its value
    for evenly spread scores. ``agreement``: mean Jaccard overlap over the ``n_pairs`` pairs of seeds
    on a task, ``agreement_random``: its expectation for layers drawn at random. A strategy without a
    result on a model has n = 0.
    """
    cells = one_per_cell(trials)
    # The kind identifies adaptive strategies whose trials all failed before the switch, the row's
    # columns those of kinds that are not installed here.
    labels = [label for label, kind in kinds().items() if kind.adaptive and not kind.redraws]
    switched = pl.any_horizontal(pl.col("layer_changes", "switch_step").is_not_null())
    adaptive = set(cells.filter(switched | pl.col("kind").is_in(labels))["strategy"])
    usable = (pl.col("status") == "ok") & pl.col("n_layers").is_not_null()
    cells = cells.filter(pl.col("strategy").is_in(list(adaptive))).with_columns(
        usable=(usable & pl.col("frozen_layers").is_not_null()).fill_null(False)
    )
    rows: list[dict[str, Any]] = []
    for (model,), of_model in cells.group_by("model", maintain_order=True):
        layers = of_model.filter("usable")["n_layers"].max()
        if isinstance(layers, int):
            for (strategy,), own in of_model.group_by("strategy", maintain_order=True):
                rows += _rows(str(model), str(strategy), layers, own.filter("usable"))
    return in_order(pl.DataFrame(rows, schema=_SCHEMA).with_columns(pl.selectors.float().round(DIGITS)))


def _rows(model: str, strategy: str, layers: int, trials: pl.DataFrame) -> list[dict[str, Any]]:
    """The rows of one strategy on one model, from the trials that selected layers."""
    frozen = [set(chosen) for chosen in trials["frozen_layers"].to_list()]
    clear = [
        value
        for scores, chosen in zip(trials["layer_changes"].to_list(), frozen, strict=True)
        if (value := decisiveness(scores or (), chosen)) is not None
    ]
    spread = pl.Series(clear, dtype=pl.Float64)
    overlaps = _overlaps(trials)
    common = {
        "decisiveness": spread.median(),
        "decisiveness_q25": spread.quantile(0.25, "linear"),
        "decisiveness_q75": spread.quantile(0.75, "linear"),
        "n_decisiveness": len(clear),
        "even": 1 / (layers - 1) if layers > 1 else None,
        "agreement": _mean([measured for measured, _ in overlaps]),
        "agreement_random": _mean([expected for _, expected in overlaps]),
        "n_pairs": len(overlaps),
        "n_tasks": trials["task"].n_unique(),
        "n": trials.height,
    }
    return [
        {
            "model": model, "strategy": strategy, "layer": layer + 1,
            "share": _mean([float(layer in chosen) for chosen in frozen]), **common,
        }
        for layer in range(layers)
    ]  # fmt: skip


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def decisiveness(scores: Sequence[float | None], frozen: Collection[int]) -> float | None:
    """The gap in score between the frozen and the kept layers, as a share of the range of all scores.

    Two clear groups give 1; evenly spread scores of L layers give 1 / (L - 1). None if no layer or every
    layer is frozen, all scores are equal, a score is not finite, or the scores do not separate the groups.

    Args:
        scores: how much each layer changed.
        frozen: layers, counted from 0.
    """
    known = [score for score in scores if score is not None and math.isfinite(score)]
    low = [score for layer, score in enumerate(known) if layer in frozen]
    high = [score for layer, score in enumerate(known) if layer not in frozen]
    if len(known) < len(scores) or len(low) < len(frozen) or not low or not high:
        return None
    gap = max(min(high) - max(low), min(low) - max(high))
    span = max(known) - min(known)
    return gap / span if span > 0 and gap >= 0 else None


def _overlaps(trials: pl.DataFrame) -> list[tuple[float, float]]:
    """The Jaccard overlap of the layers of each pair of seeds of an experiment, and its expectation at random."""
    overlaps = []
    for _, every in trials.group_by(EXPERIMENT, maintain_order=True):
        same = every.head(_MOST_SEEDS)
        # Sets as bit masks, which makes comparing many pairs fast.
        chosen = [sum(1 << layer for layer in set(layers)) for layers in same["frozen_layers"].to_list()]
        entries = list(zip(chosen, same["n_layers"].to_list(), strict=True))
        for (first, layers), (second, others) in combinations(entries, 2):
            union = (first | second).bit_count()
            if union and layers == others:
                expected = random_overlap(layers, first.bit_count(), second.bit_count())
                overlaps.append(((first & second).bit_count() / union, expected))
    return overlaps


@cache
def random_overlap(layers: int, first: int, second: int) -> float:
    """The expected Jaccard overlap of two random sets of ``first`` and ``second`` of ``layers``, exactly."""
    ways = math.comb(layers, second)
    shared = range(max(0, first + second - layers), min(first, second) + 1)
    terms = (
        math.comb(first, both) * math.comb(layers - first, second - both) * both / (first + second - both)
        for both in shared
    )
    return sum(terms) / ways
