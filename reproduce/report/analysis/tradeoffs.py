"""Accuracy against cost: the numbers of the figures on Pareto fronts, frozen shares and savings."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from reproduce.report.analysis.aggregates import DIGITS, EXPERIMENT, accuracy, efficiency
from reproduce.report.analysis.tables import table_predictions
from reproduce.report.strategy_order import BASELINE, family_of, in_order

_KEYS = [*EXPERIMENT, "strategy"]


def compared(trials: pl.DataFrame) -> pl.DataFrame:
    """Accuracy and cost of each (model, task, strategy) with trained weights, on tasks where ALL has a result.

    Columns: mean, baseline (ALL's mean), n (seeds), memory_ratio and time_ratio (ALL = 1),
    exclusive, frozen_share.
    """
    trained = trials.filter(pl.col("weights") == "pretrained")
    joined = accuracy(trained).filter(pl.col("n") > 0).join(efficiency(trained), on=_KEYS, how="left")
    baseline = pl.col("mean").filter(pl.col("strategy") == BASELINE).first().over(EXPERIMENT)
    known = joined.with_columns(baseline=baseline).drop_nulls("baseline")
    return in_order(
        known.select(
            *_KEYS, "mean", "baseline", "n", "time_ratio", "exclusive", pl.col("memory_ratio").round(DIGITS),
            "frozen_share",
        )
    )  # fmt: skip


def on_every_task(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of strategies with a result on each of their model's tasks: only their means are comparable."""
    tasks = pl.col("task").n_unique()
    return frame.filter(tasks.over("model", "strategy") == tasks.over("model"))


def pareto_data(trials: pl.DataFrame) -> pl.DataFrame:
    """Means over tasks by model and strategy, and whether the strategy is on the Pareto front.

    Columns: mean, time_ratio, memory_ratio, exclusive, n (trials), n_tasks, on_time_front,
    on_memory_front (null where the cost is unknown).
    """
    means = (
        on_every_task(compared(trials))
        .group_by("model", "strategy")
        .agg(
            pl.col("mean").mean().round(DIGITS),
            # Null where a task has no cost: a mean over some of the tasks would not be comparable.
            *(_mean_of_all(name) for name in ("time_ratio", "memory_ratio")),
            pl.col("exclusive").all(),
            pl.col("n").sum(),
            n_tasks=pl.len(),
        )
    )
    parts = [_with_fronts(part) for part in in_order(means).partition_by("model", maintain_order=True)]
    flags = {"on_time_front": pl.Boolean, "on_memory_front": pl.Boolean}
    return (
        pl.concat(parts) if parts else means.with_columns(pl.lit(None, t).alias(n) for n, t in flags.items())
    )


def _mean_of_all(name: str) -> pl.Expr:
    return pl.when(pl.col(name).null_count() == 0).then(pl.col(name).mean().round(DIGITS)).alias(name)


def _with_fronts(part: pl.DataFrame) -> pl.DataFrame:
    means = part["mean"].to_list()
    flags = {
        f"on_{cost}_front": pareto_front(part[f"{cost}_ratio"].to_list(), means)
        for cost in ("time", "memory")
    }
    return part.with_columns(pl.Series(name, values, pl.Boolean) for name, values in flags.items())


def pareto_front(costs: Sequence[float | None], values: Sequence[float]) -> list[bool | None]:
    """Whether each point is on the Pareto front: no different point costs at most as much at the same or a higher value.

    None where the cost is unknown.
    """
    points = [(cost, value) for cost, value in zip(costs, values, strict=True) if cost is not None]
    return [
        None
        if cost is None
        else not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in points)
        for cost, value in zip(costs, values, strict=True)
    ]


def ratio_data(trials: pl.DataFrame) -> pl.DataFrame:
    """Difference in accuracy to ALL by frozen share: means over the tasks that the strategy and ALL share.

    Columns: model, strategy, family, percent (of the layers that were frozen; null for LoRA and others that freeze none),
    difference (fraction of 1), std over tasks, n (trials), n_tasks.
    """
    means = (
        compared(trials)
        .with_columns(difference=pl.col("mean") - pl.col("baseline"))
        .group_by("model", "strategy")
        .agg(
            pl.col("difference").mean().round(DIGITS),
            std=pl.col("difference").std(ddof=1).round(DIGITS),
            # What was frozen, not what the name says: a third of 8 layers is 2 of them.
            percent=(100 * pl.col("frozen_share").mean()).round(DIGITS),
            n=pl.col("n").sum(),
            n_tasks=pl.len(),
        )
    )
    families = [family_of(name) for name in means["strategy"]]
    return in_order(
        means.with_columns(
            pl.Series("family", families, pl.String),
            percent=pl.when(pl.col("percent") > 0).then("percent"),
        ).filter(pl.col("strategy") != BASELINE)
    )


def savings_data(trials: pl.DataFrame) -> pl.DataFrame:
    """Measured and predicted savings against ALL, means over tasks.

    Columns: model, strategy; measured_memory, ideal_memory, measured_time, ideal_time (fractions of
    ALL's value; the ideal ones follow from predicted bytes and predicted FLOPs), exclusive, n (trials).
    """
    table = table_predictions(trials)
    is_all = pl.col("strategy") == BASELINE

    def saved(column: str) -> pl.Expr:
        baseline = pl.col(column).filter(is_all).first().over(EXPERIMENT)
        return pl.when(baseline > 0).then(1 - pl.col(column) / baseline)

    return in_order(
        table.with_columns(
            measured_memory=saved("training_bytes"),
            ideal_memory=saved("predicted_training_bytes"),
            measured_time=1 - pl.col("measured_time_ratio"),
            ideal_time=1 - pl.col("predicted_time_ratio"),
        )
        .filter(~is_all)
        .group_by("model", "strategy")
        .agg(
            pl.col("measured_memory", "ideal_memory", "measured_time", "ideal_time").mean().round(DIGITS),
            pl.col("exclusive").all(),
            pl.col("n").sum(),
        )
        .filter(pl.any_horizontal(pl.col("measured_memory", "measured_time").is_not_null()))
    )
