"""Estimates of the quantities in the paper's claims: contrasts of strategies, with intervals.

A contrast gives each of its strategies a factor: ``{"BOT25": 1, "ALL": -1}`` is BOT25's value minus
ALL's. ``paper_claims.toml`` defines each quantity for one strategy in one experiment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from reproduce.report.analysis.aggregates import DIGITS, EXPERIMENT, ranking, speed_trials, successful
from reproduce.report.analysis.inference import (
    REPETITIONS,
    Array,
    Block,
    blocks_of,
    generator,
    percentile_interval,
    ranking_samples,
    stratified_bootstrap,
)
from reproduce.report.strategy_order import BASELINE

Contrast = Mapping[str, float]


@dataclass(frozen=True)
class Estimate:
    """A contrast's value with its 95 % interval, in the quantity's own unit.

    Attributes:
        low, high: None if the spread is unknown, since an experiment has a single seed.
        least, most: the lowest and highest value of a single experiment; None for ranks, which are means
            over experiments.
        n: number of trials used.
        n_blocks: number of experiments, (model, task).
        n_seeds: the smallest number of seeds of any experiment.
    """

    value: float
    low: float | None
    high: float | None
    least: float | None
    most: float | None
    n: int
    n_blocks: int
    n_seeds: int


class ContrastEstimator:
    """Estimates contrasts over one set of trials; intermediate results are computed once."""

    def __init__(self, trials: pl.DataFrame) -> None:
        self.trials = trials
        self._blocks: dict[str, tuple[list[str], list[Block]]] = {}

    def estimate(self, quantity: str, contrast: Contrast) -> Estimate | None:
        """The contrast over all experiments that have each of its strategies; None without such experiments.

        Args:
            quantity: one that ``paper_claims.toml`` defines.
        """
        if quantity == "deviation":
            return _deviation(self.columns("accuracy", contrast), contrast)
        if quantity in _RANKED:
            return self._ranked(_RANKED[quantity], contrast)
        columns = [rows @ _factors(contrast) for rows in self.columns(quantity, contrast)]
        if not columns:
            return None
        samples = stratified_bootstrap([column[:, None] for column in columns], generator())[:, 0]
        behind = len({*contrast, BASELINE} if quantity in AGAINST_ALL else contrast)
        return _estimate(None, samples, columns, behind)

    def columns(self, quantity: str, contrast: Contrast) -> list[Array]:
        """Each experiment's values, [seeds, strategies], for the seeds that have all of the strategies."""
        if quantity not in self._blocks:
            self._blocks[quantity] = blocks_of(_VALUES[quantity](self.trials), "value")
        names, blocks = self._blocks[quantity]
        if not set(contrast) <= set(names):
            return []
        chosen = [block.values[:, [names.index(name) for name in contrast]] for block in blocks]
        return [rows for block in chosen if len(rows := block[~np.isnan(block).any(1)])]

    def _ranked(
        self, combine: Callable[[Mapping[str, Array], Contrast], Array], contrast: Contrast
    ) -> Estimate | None:
        columns = self.columns("accuracy", contrast)
        if not columns:
            return None
        observed, samples = self._scores
        value = float(combine(observed, contrast)[0])
        return _estimate(value, combine(samples, contrast), columns, len(contrast))

    @cached_property
    def _scores(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """Ranking scores by strategy, as observed and as resampled."""
        names, samples = ranking_samples(self.trials)
        observed = {row["strategy"]: np.array([row["score"]]) for row in ranking(self.trials).to_dicts()}
        return observed, {name: samples[:, place] for place, name in enumerate(names)}


def _factors(contrast: Contrast) -> Array:
    return np.array(list(contrast.values()), dtype=float)


def _estimate(value: float | None, samples: Array, columns: Sequence[Array], behind: int) -> Estimate:
    """The estimate with its interval.

    Args:
        value: None for the mean over experiments.
        columns: each experiment's values, one row for each seed: of a contrast, or of its strategies.
        behind: number of strategies whose trials are used.
    """
    means = [round(float(column.mean()), DIGITS) for column in columns] if value is None else []
    fewest = min(map(len, columns))
    low, high = percentile_interval(samples) if fewest > 1 else (None, None)
    return Estimate(
        round(float(np.mean(means)) if value is None else value, DIGITS),
        low,
        high,
        min(means, default=None),
        max(means, default=None),
        n=behind * sum(map(len, columns)),
        n_blocks=len(columns),
        n_seeds=fewest,
    )


def _accuracy(trials: pl.DataFrame) -> pl.DataFrame:
    return successful(trials).with_columns(value=pl.col("validation_accuracy"))


def _memory(trials: pl.DataFrame) -> pl.DataFrame:
    return successful(trials).with_columns(value=1 - pl.col("training_bytes") / _of_all("training_bytes"))


def _speed(trials: pl.DataFrame) -> pl.DataFrame:
    seconds = "seconds_per_10_steps"
    return speed_trials(trials).with_columns(value=_of_all(seconds) / pl.col(seconds) - 1)


def _selection(trials: pl.DataFrame) -> pl.DataFrame:
    share = pl.col("selection_seconds") / _of_all("train_seconds")
    return speed_trials(trials).with_columns(value=share)


def _of_all(column: str) -> pl.Expr:
    """The baseline's value in the same experiment and seed; null if it is absent or 0."""
    value = pl.col(column).filter(pl.col("strategy") == BASELINE).first().over(*EXPERIMENT, "seed")
    return pl.when(value > 0).then(value)


def _deviation(blocks: Sequence[Array], contrast: Contrast) -> Estimate | None:
    """Standard deviations over seeds; experiments are resampled, since each gives a single number."""
    whole = [rows for rows in blocks if len(rows) > 1]
    if not whole:
        return None
    values = np.array([rows.std(0, ddof=1) @ _factors(contrast) for rows in whole])
    drawn = generator().integers(0, len(values), (REPETITIONS, len(values)))
    low, high = percentile_interval(values[drawn].mean(1)) if len(values) > 1 else (None, None)
    least, most = round(float(values.min()), DIGITS), round(float(values.max()), DIGITS)
    n, fewest = sum(rows.size for rows in whole), min(map(len, whole))
    return Estimate(round(float(values.mean()), DIGITS), low, high, least, most, n, len(whole), fewest)


def _sum(scores: Mapping[str, Array], contrast: Contrast) -> Array:
    total: Array = np.sum([factor * scores[name] for name, factor in contrast.items()], axis=0)
    return total


def _lead(scores: Mapping[str, Array], contrast: Contrast) -> Array:
    """The lowest score in the contrast minus the highest of all other strategies; 0 without others."""
    inside = np.min([scores[name] for name in contrast], axis=0)
    others = [scores[name] for name in scores if name not in contrast]
    return inside - np.max(others, axis=0) if others else np.zeros_like(inside)


_VALUES: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "accuracy": _accuracy,
    "memory": _memory,
    "speed": _speed,
    "selection": _selection,
}
# Quantities relative to ALL, which use its trials even if a contrast does not name it.
AGAINST_ALL = ("memory", "speed", "selection")
_RANKED: dict[str, Callable[[Mapping[str, Array], Contrast], Array]] = {"rank": _sum, "lead": _lead}
