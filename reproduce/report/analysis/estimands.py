"""Estimates of the quantities in the paper's claims: contrasts of strategies, with intervals.

A contrast gives each of its strategies a factor: ``{"BOT25": 1, "ALL": -1}`` is BOT25's value minus
ALL's. ``paper_claims.toml`` defines each quantity for one strategy in one experiment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from reproduce.report.analysis.aggregates import (
    DIGITS,
    EXPERIMENT,
    first_10_steps_seconds,
    rank_points,
    speed_trials,
    successful,
    training_peak,
)
from reproduce.report.analysis.examples import Contrast, Correctness, bounded_variance
from reproduce.report.analysis.inference import (
    LEVEL,
    Array,
    Block,
    Largest,
    Mean,
    Share,
    Smallest,
    Span,
    Uncertain,
    blocks_of,
    mean_over_blocks,
    mean_over_experiments,
)
from reproduce.report.analysis.ledger import AGAINST_ALL, MARGINS, RANKED
from reproduce.report.strategy_order import BASELINE


@dataclass(frozen=True)
class Estimate:
    """A contrast's value with its confidence interval, in the quantity's own unit.

    Attributes:
        least, most: the lowest and highest value of a single experiment (of a single model for memory);
            None for ranks and shares.
        n: number of trials used.
        n_blocks: number of experiments, (model, task).
        n_seeds: the smallest number of seeds of any experiment.
        models: the models of the experiments.
    """

    result: Uncertain
    least: float | None
    most: float | None
    n: int
    n_blocks: int
    n_seeds: int
    models: tuple[str, ...]

    @property
    def value(self) -> float:
        return self.result.value

    @property
    def low(self) -> float | None:
        """The lower end of the 95 % interval; None if an experiment has a single seed, so that the spread is unknown."""
        return (self.result.interval() or (None, None))[0]

    @property
    def high(self) -> float | None:
        return (self.result.interval() or (None, None))[1]

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        """The ends of the interval at another level; None as for ``low``."""
        return self.result.interval(level)


class ContrastEstimator:
    """Estimates contrasts over one set of trials; intermediate results are computed once.

    Args:
        correctness: which trials predicted which examples correctly; without it, the examples' part of an
            accuracy's variance is bounded (``examples.bounded_variance``).
    """

    def __init__(self, trials: pl.DataFrame, correctness: Correctness | None = None) -> None:
        self.trials = trials
        self._correctness = correctness or Correctness({}, {})
        self._blocks: dict[str, tuple[list[str], list[Block]]] = {}

    def estimate(
        self, quantity: str, contrast: Contrast, models: Collection[str] = (), *, highest: bool = False
    ) -> Estimate | None:
        """The contrast over all experiments that have each of its strategies; None without such experiments.

        Args:
            quantity: one that ``paper_claims.toml`` defines.
            models: only experiments of these; empty for all.
            highest: the model with the highest value instead of the mean over experiments.
        """
        if quantity in RANKED:
            return self._ranked(quantity, contrast, models)
        blocks = self.blocks(_OF_ACCURACY.get(quantity, quantity), contrast, models)
        if quantity == "deviation":
            blocks = [block for block in blocks if len(block.values) > 1]
        if not blocks:
            return None
        factors = np.array(list(contrast.values()), dtype=float)
        result, parts = self._result(quantity, contrast, blocks, factors)
        if highest:
            names = dict.fromkeys(block.model for block in blocks)
            apart = [[block for block in blocks if block.model == name] for name in names]
            result, parts = _highest([self._result(quantity, contrast, own, factors)[0] for own in apart])
        behind = len({*contrast, BASELINE} if quantity in AGAINST_ALL else contrast)
        return Estimate(
            result,
            None if isinstance(result, Share) else round(min(parts), DIGITS),
            None if isinstance(result, Share) else round(max(parts), DIGITS),
            n=behind * sum(len(block.values) for block in blocks),
            n_blocks=len(blocks),
            n_seeds=min(len(block.values) for block in blocks),
            models=tuple(dict.fromkeys(block.model for block in blocks)),
        )

    def blocks(self, quantity: str, contrast: Contrast, models: Collection[str] = ()) -> list[Block]:
        """Each experiment's values of the contrast's strategies, for the seeds that have all of them."""
        if quantity not in self._blocks:
            self._blocks[quantity] = blocks_of(_VALUES[quantity](self.trials), "value")
        names, blocks = self._blocks[quantity]
        if not set(contrast) <= set(names):
            return []
        places = [names.index(name) for name in contrast]
        chosen = []
        for block in blocks:
            values = block.values[:, places]
            whole = np.flatnonzero(~np.isnan(values).any(1))
            if len(whole) and (not models or block.model in models):
                seeds = tuple(block.seeds[row] for row in whole)
                chosen.append(Block(block.model, block.task, values[whole], seeds))
        return chosen

    def _result(
        self, quantity: str, contrast: Contrast, blocks: Sequence[Block], factors: Array
    ) -> tuple[Uncertain, list[float]]:
        """The estimate, and the value of each experiment (of each model for memory)."""
        columns = [block.values @ factors for block in blocks]
        means = [round(float(column.mean()), DIGITS) for column in columns]
        if quantity == "memory":
            of_model = [
                float(
                    np.mean([mean for mean, block in zip(means, blocks, strict=True) if block.model == model])
                )
                for model in dict.fromkeys(block.model for block in blocks)
            ]
            least, most = round(min(of_model), DIGITS), round(max(of_model), DIGITS)
            return Span(round(float(np.mean(of_model)), DIGITS), least, most), of_model
        if quantity == "better":
            return Share(sum(0.5 + 0.5 * float(np.sign(mean)) for mean in means), len(means)), means
        if quantity == "not_worse":
            return Share(sum(mean >= -MARGINS["accuracy"] for mean in means), len(means)), means
        if quantity == "deviation":
            spreads = np.array([block.values.std(0, ddof=1) @ factors for block in blocks])
            return mean_over_experiments(spreads), spreads.tolist()
        if quantity == "accuracy":
            return mean_over_blocks(columns, self._example_variance(blocks, contrast)), means
        return mean_over_blocks(columns), means

    def _example_variance(self, blocks: Sequence[Block], contrast: Contrast) -> float | None:
        """What the choice of the validation examples adds to the variance of the sum of the blocks' contrasts.

        Models share the examples of a task. None if a number of examples is unknown.
        """
        total = 0.0
        for task in dict.fromkeys(block.task for block in blocks):
            here = [block for block in blocks if block.task == task]
            seeds = set.intersection(*(set(block.seeds) for block in here))
            experiments = [(block.model, block.task) for block in here]
            measured = self._correctness.variance(experiments, contrast, sorted(seeds))
            if measured is None:
                bounds = [self._bound(block, contrast) for block in here]
                if None in bounds:
                    return None
                # At most, all models err on the same examples.
                measured = sum(math.sqrt(bound) for bound in bounds if bound is not None) ** 2
            total += measured
        return total

    def _bound(self, block: Block, contrast: Contrast) -> float | None:
        n_examples = self._n_examples.get((block.model, block.task))
        return bounded_variance(block.values.mean(0).tolist(), contrast, n_examples) if n_examples else None

    @cached_property
    def _n_examples(self) -> dict[tuple[str, str], int]:
        counts = self.trials.group_by(EXPERIMENT).agg(pl.col("n_validation").min()).drop_nulls()
        return {(model, task): count for model, task, count in counts.iter_rows()}

    def _ranked(self, quantity: str, contrast: Contrast, models: Collection[str]) -> Estimate | None:
        """Ranking scores, over the experiments in which all of the paper's strategies have a result."""
        points = self._points.filter(pl.col("model").is_in(models)) if models else self._points
        if not points.height or not set(contrast) <= set(points["strategy"]):
            return None
        wide = points.pivot("strategy", index=EXPERIMENT, values="points")
        scores = {name: wide[name].to_numpy() for name in wide.columns[len(EXPERIMENT) :]}
        result: Uncertain
        if quantity == "rank":
            result = mean_over_experiments(
                np.sum([factor * scores[name] for name, factor in contrast.items()], axis=0)
            )
        else:
            others = [name for name in scores if name not in contrast]
            result = Smallest(
                tuple(mean_over_experiments(scores[a] - scores[b]) for a in contrast for b in others)
            )
        used = tuple(dict.fromkeys(points["model"]))
        return Estimate(result, None, None, int(points["n"].sum()), wide.height, min(points["n"]), used)

    @cached_property
    def _points(self) -> pl.DataFrame:
        return rank_points(self.trials).filter("complete", pl.col("group") == "paper")


def _highest(of_models: Sequence[Uncertain]) -> tuple[Uncertain, list[float]]:
    """The highest of the models' values; the lower end of its interval allows for the choice."""
    values = [result.value for result in of_models]
    means = [result for result in of_models if isinstance(result, Mean)]
    top = max(values)
    return (Largest(tuple(means)) if means else Span(top, top, top)), values


def _accuracy(trials: pl.DataFrame) -> pl.DataFrame:
    return successful(trials).with_columns(value=pl.col("validation_accuracy"))


def _memory(trials: pl.DataFrame) -> pl.DataFrame:
    cells = successful(trials).with_columns(peak=training_peak().cast(pl.Float64))
    return cells.with_columns(value=1 - pl.col("peak") / _of_all("peak"))


def _speed(trials: pl.DataFrame) -> pl.DataFrame:
    seconds = "seconds_per_10_steps"
    return speed_trials(trials).with_columns(value=_of_all(seconds) / pl.col(seconds) - 1)


def _start(trials: pl.DataFrame) -> pl.DataFrame:
    return speed_trials(trials).with_columns(value=first_10_steps_seconds() / _of_all("seconds_per_10_steps"))


def _selection(trials: pl.DataFrame) -> pl.DataFrame:
    share = pl.col("selection_seconds") / _of_all("train_seconds")
    return speed_trials(trials).with_columns(value=share)


def _of_all(column: str) -> pl.Expr:
    """The baseline's value in the same experiment and seed; null if it is absent or 0."""
    value = pl.col(column).filter(pl.col("strategy") == BASELINE).first().over(*EXPERIMENT, "seed")
    return pl.when(value > 0).then(value)


_VALUES: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "accuracy": _accuracy,
    "memory": _memory,
    "speed": _speed,
    "start": _start,
    "selection": _selection,
}
# Quantities that are computed from accuracies.
_OF_ACCURACY = dict.fromkeys(("deviation", "better", "not_worse"), "accuracy")
