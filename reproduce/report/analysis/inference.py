"""Statistical inference on differences between strategies.

A block is one experiment, (model, task). Intervals of means are conditional on the blocks that were run:
seeds and validation examples are random within each. Intervals of ranks, deviations and shares take the
experiments as the sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from reproduce.report.analysis.aggregates import DIGITS, EXPERIMENT
from reproduce.report.strategy_order import strategies_in_order

LEVEL = 0.95
ALPHA = 0.05  # of the signed-rank tests
_MOST_FLIPPED = 15  # up to so many differences, all 2**n sign flips are enumerated

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Block:
    """One experiment's values; ``values[i, k]`` is strategy k's under ``seeds[i]``, NaN where there is none."""

    model: str
    task: str
    values: Array
    seeds: tuple[int, ...]


def _scipy_stats() -> Any:
    """Imported when needed: it takes half a second, and worker processes that draw do not need it."""
    from scipy import stats

    return stats


@cache
def _t_quantile(level: float, freedom: float) -> float:
    return float(_scipy_stats().t.isf((1 - level) / 2, freedom))


class Uncertain(Protocol):
    """An estimated value that has a confidence interval at any level, which contains the value."""

    @property
    def value(self) -> float: ...

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        """The interval's ends; None if the spread is unknown."""
        ...


@dataclass(frozen=True)
class Mean:
    """A mean with a t interval.

    Attributes:
        error: its standard error; None if the spread is unknown.
        freedom: degrees of freedom of ``error``.
    """

    value: float
    error: float | None
    freedom: float = math.inf

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        if self.error is None:
            return None
        if self.error == 0:
            return self.value, self.value
        half = _t_quantile(level, self.freedom) * self.error
        return round(self.value - half, DIGITS), round(self.value + half, DIGITS)


@dataclass(frozen=True)
class Smallest:
    """The smallest of several values.

    Its lower end needs no correction, since the smallest value is one of them; the upper end holds for all
    of them at once (Bonferroni), since any of them may be the smallest.
    """

    means: tuple[Mean, ...]

    @property
    def value(self) -> float:
        return min(mean.value for mean in self.means)

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        jointly = 1 - (1 - level) / len(self.means)
        low = [ends[0] for mean in self.means if (ends := mean.interval(level))]
        high = [ends[1] for mean in self.means if (ends := mean.interval(jointly))]
        return (min(low), min(high)) if len(low) == len(self.means) else None


@dataclass(frozen=True)
class Largest:
    """The largest of several values; the mirror image of ``Smallest``."""

    means: tuple[Mean, ...]

    @property
    def value(self) -> float:
        return max(mean.value for mean in self.means)

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        mirrored = Smallest(tuple(Mean(-m.value, m.error, m.freedom) for m in self.means)).interval(level)
        return (-mirrored[1], -mirrored[0]) if mirrored else None


@dataclass(frozen=True)
class Share:
    """The share of ``n`` experiments in which a statement holds, with an exact interval (Clopper and Pearson, 1934).

    Attributes:
        held: number of experiments; a tie counts half.
    """

    held: float
    n: int

    @property
    def value(self) -> float:
        return round(self.held / self.n, DIGITS)

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        beta, tail = _scipy_stats().beta, (1 - level) / 2
        low = beta.ppf(tail, self.held, self.n - self.held + 1) if self.held > 0 else 0.0
        high = beta.isf(tail, self.held + 1, self.n - self.held) if self.held < self.n else 1.0
        return round(float(low), DIGITS), round(float(high), DIGITS)


@dataclass(frozen=True)
class Span:
    """A quantity without random error: its mean, and the lowest and highest value of a single model."""

    value: float
    least: float
    most: float

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        return self.least, self.most


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
        values = whole.select(pl.all().fill_null(float("nan"))).to_numpy()
        blocks.append(Block(str(model), str(task), values, tuple(wide["seed"])))
    return names, blocks


def mean_over_blocks(columns: Sequence[Array], example_variance: float | None = 0.0) -> Mean:
    """The mean over blocks of the blocks' means, all with equal weight; its error is unknown if a block has one value.

    The degrees of freedom are Satterthwaite's (1946), so that blocks of few seeds and of unequal spread keep
    the interval's coverage.

    Args:
        columns: each block's values, [n].
        example_variance: what the choice of the validation examples adds to the variance of the sum of the
            blocks' means; None if it is unknown, and with it the error.
    """
    value = round(float(np.mean([column.mean() for column in columns])), DIGITS)
    if min(map(len, columns)) < 2 or example_variance is None:
        return Mean(value, None)
    seeds = [float(column.var(ddof=1)) / len(column) for column in columns]
    total = sum(seeds) + example_variance
    # Examples are many, and add no uncertainty about their own variance.
    freedom_parts = sum(v * v / (len(column) - 1) for v, column in zip(seeds, columns, strict=True))
    freedom = total * total / freedom_parts if freedom_parts else math.inf
    return Mean(value, round(math.sqrt(total) / len(columns), DIGITS), freedom)


def mean_over_experiments(values: Array) -> Mean:
    """The mean of one value for each experiment, which are the sample.

    Its error is unknown for a single experiment, and where all values are equal: such as ranks that all tie.
    """
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    error = spread / math.sqrt(len(values)) if round(spread, DIGITS) else None
    return Mean(round(float(values.mean()), DIGITS), error, len(values) - 1)


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


def can_reach(n_differences: int, n_tests: int) -> bool:
    """Whether a signed-rank test can pass Holm's adjustment over ``n_tests`` at all.

    The smallest two-sided p-value of n differences is 2 / 2**n.

    Args:
        n_differences: blocks whose difference is not 0; the test omits the others.
    """
    return 2.0 ** (1 - n_differences) * n_tests < ALPHA


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
