"""Statistical inference on differences between strategies.

A block is one experiment, (model, task). Intervals are conditional on the blocks that were run:
seeds are resampled within each. The signed-rank test, on one difference per block, examines whether a
difference holds across experiments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from reproduce.report.analysis.aggregates import DIGITS, EXPERIMENT, successful
from reproduce.report.strategy_order import BASELINE, in_order, strategies_in_order

LEVEL = 0.95
REPETITIONS = 10_000
# Blocks with very many seeds need fewer repetitions.
_MOST_DRAWS, _FEWEST_REPETITIONS = 500_000, 1000
_MOST_FLIPPED = 15  # up to so many differences, all 2**n sign flips are enumerated
_SEED = 20_250_101  # of the generator behind a report's intervals

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Block:
    """One experiment's values; ``values[i, k]`` is strategy k's under seed i, NaN where there is none."""

    model: str
    task: str
    values: Array


def _scipy_stats() -> Any:
    """Imported when needed: it takes half a second, and worker processes that draw do not need it."""
    from scipy import stats

    return stats


def generator() -> np.random.Generator:
    """A generator with a fixed seed, so that the same trials always give the same intervals."""
    return np.random.default_rng(_SEED)


def blocks_of(cells: pl.DataFrame, column: str = "validation_accuracy") -> tuple[list[str], list[Block]]:
    """The strategies' names, and each experiment's values of ``column``, one row for each seed.

    Args:
        cells: each (model, task, strategy, seed) once, as ``aggregates.successful`` returns them.
    """
    known = cells.drop_nulls(column)
    names = strategies_in_order(known["strategy"])
    blocks = []
    for (model, task), rows in known.group_by(EXPERIMENT, maintain_order=True):
        wide = rows.pivot("strategy", index="seed", values=column)
        # A strategy absent from this experiment becomes a column of nulls, and then of NaN.
        whole = pl.concat(
            [pl.DataFrame(schema=dict.fromkeys(names, pl.Float64)), wide.drop("seed").cast(pl.Float64)],
            how="diagonal",
        )
        blocks.append(Block(str(model), str(task), whole.select(pl.all().fill_null(float("nan"))).to_numpy()))
    return names, blocks


def repetitions_for(blocks: Sequence[Array]) -> int:
    """The number of bootstrap repetitions for blocks of this many seeds."""
    seeds = max((len(values) for values in blocks), default=1)
    return max(_FEWEST_REPETITIONS, min(REPETITIONS, _MOST_DRAWS // max(seeds, 1)))


def resampled_means(values: Array, random: np.random.Generator, repetitions: int = REPETITIONS) -> Array:
    """Bootstrap means of one block, [repetitions, K] from [n, K]; the rows are drawn jointly.

    n − 1 of n rows are drawn with replacement, not n: the variance of such a mean is the unbiased
    s²/n, whereas n draws of five seeds underestimate it by a fifth (Rao and Wu, 1988). NaN is omitted;
    for a draw of NaN only, and for a single row, the result is the block's mean.
    """
    n = len(values)
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        means = np.nansum(values, 0) / known.sum(0)
    if n < 2:
        return np.broadcast_to(means, (repetitions, values.shape[1]))
    drawn = random.integers(0, n, (repetitions, n - 1))
    drawn += n * np.arange(repetitions)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=n * repetitions).reshape(repetitions, n).astype(float)
    sums, sizes = counts @ np.where(known, values, 0.0), counts @ known.astype(float)
    resampled: Array = np.where(sizes > 0, sums / np.maximum(sizes, 1), means)
    return resampled


def stratified_bootstrap(
    blocks: Sequence[Array], random: np.random.Generator, repetitions: int | None = None
) -> Array:
    """Bootstrap means over blocks of the blocks' means, [repetitions, K]; all blocks have equal weight.

    Args:
        blocks: [n, K] each; a block without any value in a column is omitted for that column.
    """
    repetitions = repetitions or repetitions_for(blocks)
    total: Array = np.zeros((repetitions, blocks[0].shape[1]))
    counted: Array = np.zeros(blocks[0].shape[1])
    for values in blocks:
        present = (~np.isnan(values)).any(0)
        total += np.where(present, resampled_means(values, random, repetitions), 0.0)
        counted += present
    with np.errstate(invalid="ignore"):
        return total / np.where(counted > 0, counted, np.nan)


def percentile_interval(samples: Array, level: float = LEVEL) -> tuple[float, float]:
    """The central ``level`` of bootstrap samples."""
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return round(float(low), DIGITS), round(float(high), DIGITS)


def signed_rank_p(differences: Sequence[float] | Array) -> float | None:
    """Two-sided Wilcoxon signed-rank test of one difference per block against 0.

    None without any block; 1 if all differences are 0. Zeros are omitted (Wilcoxon, 1945). With ties, the
    test is exact up to ``_MOST_FLIPPED`` blocks, by enumerating all sign flips; beyond, it uses the normal
    approximation.
    """
    values = np.round(np.asarray(differences, dtype=float), DIGITS)
    if not len(values):
        return None
    values = values[values != 0]
    if not len(values):
        return 1.0
    stats = _scipy_stats()
    if len(np.unique(np.abs(values))) < len(values) <= _MOST_FLIPPED:
        signed = np.sign(values) * stats.rankdata(np.abs(values))
        flips = {"permutation_type": "samples", "vectorized": True, "n_resamples": np.inf}
        return float(stats.permutation_test((signed,), np.sum, **flips).pvalue)
    return float(stats.wilcoxon(values).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment over the p-values that are not None (Holm, 1979)."""
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[place] = largest
    return adjusted


def mcnemar_p(only_first: npt.ArrayLike, only_second: npt.ArrayLike) -> Array:
    """McNemar's exact two-sided test, elementwise.

    Args:
        only_first, only_second: numbers of examples that only the first and only the second got right.
    """
    first, second = np.asarray(only_first), np.asarray(only_second)
    p_values: Array = np.minimum(
        1.0, 2 * _scipy_stats().binom.cdf(np.minimum(first, second), first + second, 0.5)
    )
    return p_values


def paired_differences(names: Sequence[str], blocks: Sequence[Block], against: str) -> list[Array]:
    """Each block's values minus those of ``against`` under the same seed."""
    place = list(names).index(against)
    return [block.values - block.values[:, [place]] for block in blocks]


def differences(
    trials: pl.DataFrame,
    *,
    against: str = BASELINE,
    column: str = "validation_accuracy",
    by: Sequence[str] = (),
    random: np.random.Generator | None = None,
) -> pl.DataFrame:
    """Each strategy's difference to ``against`` in ``column``, paired by model, task and seed.

    Args:
        by: which of ``model`` and ``task`` to separate; blocks are averaged over the others.

    Returns:
        Columns: those of ``by``, strategy, difference (mean over blocks of the blocks' mean), low and
        high (95 % stratified bootstrap; null if a block has a single pair), n_blocks, n (pairs), p
        (signed-rank over blocks) and p_holm (adjusted over the strategies compared). Strategies without
        a pair have n = 0. Empty without ``against``.
    """
    names, blocks = blocks_of(successful(trials), column)
    random = random or generator()
    rows = []
    if against in names:
        for part in dict.fromkeys(tuple(getattr(block, key) for key in by) for block in blocks):
            chosen = [b for b in blocks if tuple(getattr(b, key) for key in by) == part]
            compared = _compare(names, paired_differences(names, chosen, against), against, random)
            rows += [{**dict(zip(by, part, strict=True)), **row} for row in compared]
    return in_order(pl.DataFrame(rows, schema=_schema(by)))


def _schema(by: Sequence[str]) -> dict[str, type[pl.DataType]]:
    numbers = dict.fromkeys(("difference", "low", "high"), pl.Float64)
    counts = dict.fromkeys(("n_blocks", "n"), pl.Int64)
    p_values = dict.fromkeys(("p", "p_holm"), pl.Float64)
    return {**dict.fromkeys((*by, "strategy"), pl.String), **numbers, **counts, **p_values}


def _compare(
    names: Sequence[str], blocks: Sequence[Array], against: str, random: np.random.Generator
) -> list[dict[str, object]]:
    samples = stratified_bootstrap(blocks, random)
    rows: list[dict[str, object]] = []
    for place, name in enumerate(names):
        if name == against:
            continue
        columns = [block[:, place][~np.isnan(block[:, place])] for block in blocks]
        columns = [column for column in columns if len(column)]
        means = np.array([column.mean() for column in columns])
        row: dict[str, object] = dict.fromkeys(("difference", "low", "high", "p"))
        row |= {"strategy": name, "n_blocks": len(columns), "n": sum(map(len, columns))}
        if columns:
            row |= {"difference": round(float(means.mean()), DIGITS), "p": signed_rank_p(means)}
            if min(map(len, columns)) > 1:
                row["low"], row["high"] = percentile_interval(samples[:, place])
        rows.append(row)
    p_values = [row["p"] if isinstance(row["p"], float) else None for row in rows]
    return [{**row, "p_holm": p} for row, p in zip(rows, holm(p_values), strict=True)]


def ranking_samples(
    trials: pl.DataFrame, random: np.random.Generator | None = None, repetitions: int | None = None
) -> tuple[list[str], Array]:
    """Bootstrap ranking scores (§4.6), [repetitions, K], seeds resampled within each block.

    A strategy without a result in a block is not ranked there.
    """
    names, blocks = blocks_of(successful(trials))
    random = random or generator()
    repetitions = repetitions or repetitions_for([block.values for block in blocks])
    total, counted = np.zeros((repetitions, len(names))), np.zeros(len(names))
    for block in blocks:
        present = (~np.isnan(block.values)).any(0)
        means = np.round(resampled_means(block.values[:, present], random, repetitions), DIGITS)
        total[:, present] += _scipy_stats().rankdata(means, axis=1) - 1
        counted += present
    with np.errstate(invalid="ignore"):
        return names, total / np.where(counted > 0, counted, np.nan)
