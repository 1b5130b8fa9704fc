"""What the choice of the validation examples adds to the variance of an accuracy.

Strategies, seeds and models share a task's validation examples, so that averaging over them does not reduce
their sampling error. On small validation splits (56 examples of CB, 71 of WNLI) it exceeds the seeds'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from reproduce.report.analysis.aggregates import EXPERIMENT, successful

# The examples' component does not shrink with the number of seeds, and a few of them suffice to estimate it.
_MOST_SEEDS = 20

Contrast = Mapping[str, float]
Experiment = tuple[str, str]  # model, task
Matrix = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Correctness:
    """Which trials predicted which examples correctly.

    Attributes:
        trials: by (model, task), then by (strategy, seed): one value for each example, in one order.
        examples: by (model, task), a value that is equal for equal examples.
    """

    trials: Mapping[Experiment, Mapping[tuple[str, int], Matrix]]
    examples: Mapping[Experiment, int]

    def variance(
        self, experiments: Sequence[Experiment], contrast: Contrast, seeds: Iterable[int]
    ) -> float | None:
        """The variance that the examples add to the sum of some experiments' contrasts, means over seeds.

        It is the component of the examples in a two-way analysis of variance (seeds by examples, both random):
        what seeds and examples cause together is already in the spread of the seeds' accuracies. None
        unless the experiments have the same examples, and predictions of these seeds.
        """
        known = [self.trials.get(experiment, {}) for experiment in experiments]
        if len({self.examples.get(experiment) for experiment in experiments}) > 1:
            return None
        rows = [
            sum(
                factor * trials[name, seed].astype(np.float64)
                for trials in known
                for name, factor in contrast.items()
            )
            for seed in seeds
            if all((name, seed) in trials for trials in known for name in contrast)
        ]
        return _example_component(np.array(rows)) if rows else None


def _example_component(values: npt.NDArray[np.float64]) -> float:
    """The variance component of the columns over their number, [rows, columns]; at least 0."""
    rows, columns = (int(size) for size in values.shape)
    if columns < 2:
        return 0.0
    means = values.mean(0)
    between = float(means.var(ddof=1))
    if rows == 1:
        return between / columns
    residual = values - means - values.mean(1, keepdims=True) + values.mean()
    within = float((residual**2).sum()) / ((rows - 1) * (columns - 1))
    return max(0.0, between - within / rows) / columns


def bounded_variance(accuracies: Sequence[float], contrast: Contrast, n_examples: float) -> float:
    """The variance that the examples would add if the strategies erred independently, for trials without predictions.

    Strategies that err on the same examples, as they do, have less.

    Args:
        accuracies: mean accuracies in the order of the contrast.
    """
    pairs = zip(contrast.values(), accuracies, strict=True)
    total: float = sum(factor * factor * mean * (1 - mean) for factor, mean in pairs)
    return total / n_examples


def read_correctness(
    trials: pl.DataFrame, read: Callable[[Callable[[pl.LazyFrame], pl.LazyFrame]], pl.DataFrame | None]
) -> Correctness:
    """The correctness of every successful trial's predictions; empty without predictions.

    Args:
        read: returns the result of a query on the table of predictions; None if there is none.
    """
    cells = successful(trials).filter(pl.col("seed").rank("dense").over(EXPERIMENT) <= _MOST_SEEDS)
    wanted = cells.lazy().select("run_id")

    def by_trial(predictions: pl.LazyFrame) -> pl.LazyFrame:
        rows = predictions.select(
            "run_id", example=pl.col("example_id").hash(), right=pl.col("label") == pl.col("prediction")
        )
        in_order = pl.col("example").sort()
        return (
            rows.join(wanted, on="run_id", how="semi")
            .group_by("run_id")
            .agg(
                pl.col("right").sort_by("example"),
                # Equal for trials of the same examples.
                examples=(in_order.hash() * pl.int_range(1, pl.len() + 1, dtype=pl.UInt64)).sum(),
            )
        )

    table = read(by_trial)
    if table is None:
        return Correctness({}, {})
    blocks: dict[Experiment, dict[tuple[str, int], Matrix]] = {}
    examples: dict[Experiment, int] = {}
    joined = cells.select("run_id", *EXPERIMENT, "strategy", "seed").join(table, on="run_id")
    same = pl.col("examples") == pl.col("examples").mode().first().over(EXPERIMENT)
    for row in joined.filter(same).iter_rows(named=True):
        experiment = (row["model"], row["task"])
        examples[experiment] = row["examples"]
        blocks.setdefault(experiment, {})[row["strategy"], row["seed"]] = np.array(
            row["right"], dtype=np.bool_
        )
    return Correctness(blocks, examples)
