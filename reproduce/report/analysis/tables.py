"""The report's tables as frames of numbers; ``text.tables`` formats them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from lfreeze.data.tasks import TASKS
from reproduce.report.analysis.aggregates import (
    EXPERIMENT,
    accuracy,
    distinct_trials,
    efficiency,
    ranking,
    training_peak,
)
from reproduce.report.strategy_order import BASELINE, in_order
from reproduce.store.grid import grid_names, with_points

_TRIALS = (
    "strategy",
    "model",
    "task",
    "seed",
    "status",
    "validation_accuracy",
    "macro_f1",
    "matthews_correlation",
    "seconds_per_10_steps",
    "exclusive",
    "training_bytes",
    "static_bytes",
    "frozen_layers",
    "n_layers",
    "total_seconds",
    "space",
    "attempt",
    "run_id",
)
_SIZES = ("n_train", "n_train_available", "n_validation", "n_validation_available")
_PREDICTED = (
    "training_bytes",
    "predicted_training_bytes",
    "backward_depth",
    "planned_backward_depth",
    "n_layers",
    "predicted_step_flops",
)
PROBLEM_SCHEMA = {
    "problem": pl.String(),
    "model": pl.String(),
    "task": pl.String(),
    "strategy": pl.String(),
    "seed": pl.Int64(),
    "point": pl.String(),
    "reason": pl.String(),
}
MAJORITY = "majority class"


def table_tasks(trials: pl.DataFrame) -> pl.DataFrame:
    """Table 1: each task's sizes as loaded, in the official benchmark, and as the paper prints them (§4.1).

    ``train_used`` is the fraction of the loaded training split that trials use; ``paper_train_used`` the paper's.
    """
    sizes = (
        trials.filter(pl.col("status") == "ok")
        .select("task", "label_names", *_SIZES)
        .unique()
        .sort("task", *_SIZES)
    )
    known = [TASKS.get(name) for name in sizes["task"]]
    official = [None if task is None or task.tiny else task for task in known]
    printed = [task and task.printed for task in known]
    return sizes.with_columns(
        pl.Series("benchmark_train", [t and t.n_train for t in official], pl.Int64),
        pl.Series("benchmark_validation", [t and t.n_validation for t in official], pl.Int64),
        pl.Series("paper_train", [row and row.n_used for row in printed], pl.Int64),
        pl.Series("paper_train_available", [row and row.n_available for row in printed], pl.Int64),
        pl.Series("paper_train_used", [row and row.percent / 100 for row in printed], pl.Float64),
        train_used=pl.col("n_train") / pl.col("n_train_available"),
    )


def table_predictions(trials: pl.DataFrame) -> pl.DataFrame:
    """Predictions of ``lfreeze.cost`` and measurements, by model, task and strategy.

    Medians over seeds; times and FLOPs as fractions of ALL's in the same model and task.
    """
    keys = [*EXPERIMENT, "strategy"]
    medians = (
        trials.filter((pl.col("status") == "ok") & pl.col("predicted_step_flops").is_not_null())
        .group_by(keys)
        .agg(pl.col(*_PREDICTED).median(), n=pl.len())
    )
    times = efficiency(trials).select(*keys, "exclusive", measured_time_ratio="time_ratio")
    baseline = medians.filter(pl.col("strategy") == BASELINE).select(
        *EXPERIMENT, all_flops="predicted_step_flops"
    )
    joined = (
        medians.join(baseline, on=EXPERIMENT, how="left")
        .join(times, on=keys, how="left")
        .with_columns(
            memory_measured_over_predicted=_over("training_bytes", "predicted_training_bytes"),
            predicted_time_ratio=_over("predicted_step_flops", "all_flops"),
        )
    )
    return in_order(joined.drop("all_flops", "predicted_step_flops"))


def _over(column: str, other: str) -> pl.Expr:
    """The ratio of two columns; null if the divisor is null or 0."""
    return pl.when(pl.col(other) > 0).then(pl.col(column) / pl.col(other))


def table_accuracy(trials: pl.DataFrame) -> pl.DataFrame:
    """Accuracy by model and strategy; for each task its mean, std (fractions of 1) and n.

    The last row of each model is the majority class, which has no std and no n.
    """
    means = accuracy(trials)
    tasks = sorted(set(means["task"]))
    baselines = means.select(*EXPERIMENT, mean="majority").unique().drop_nulls("mean")
    majority = baselines.with_columns(
        strategy=pl.lit(MAJORITY), std=pl.lit(None, pl.Float64), n=pl.lit(None, pl.UInt32)
    )
    columns = [*EXPERIMENT, "strategy", "mean", "std", "n"]
    tall = pl.concat([means.select(columns), majority.select(columns)])
    wide = tall.select("model", "strategy").unique()
    for task in tasks:
        named = {name: f"{task} {name}" for name in ("mean", "std", "n")}
        one = tall.filter(pl.col("task") == task).drop("task").rename(named)
        wide = wide.join(one, on=["model", "strategy"], how="left")
    return pl.concat(
        [
            in_order(wide.filter(is_majority == (pl.col("strategy") == MAJORITY)))
            for is_majority in (False, True)
        ]
    ).sort("model", maintain_order=True)


def table_efficiency(trials: pl.DataFrame) -> pl.DataFrame:
    """Memory, step time, backward depth and trainable share; see ``aggregates.efficiency``."""
    return efficiency(trials)


def table_ranking(trials: pl.DataFrame) -> pl.DataFrame:
    """Ranking scores of trained weights, the highest first; see ``aggregates.ranking``."""
    return ranking(trials.filter(pl.col("weights") == "pretrained"))


def table_trials(trials: pl.DataFrame) -> pl.DataFrame:
    """Every trial, one row each, its training memory that of the whole run; layers are counted from 0.

    The last columns are the recipe values that a grid varies.
    """
    varied = [f"recipe_{name}" for name in grid_names(trials)]
    rows = distinct_trials(trials).with_columns(training_bytes=training_peak())
    return rows.select(*_TRIALS, *varied)


def table_problems(
    trials: pl.DataFrame, damaged: Sequence[Mapping[str, object]], missing: Sequence[Mapping[str, object]]
) -> pl.DataFrame:
    """Trials without a result, each with the reason: failed (with their status), damaged, missing."""
    failed = distinct_trials(trials).filter(pl.col("status") != "ok")
    failed = with_points(failed, grid_names(trials))
    kind = pl.when(pl.col("error_type").is_null()).then(pl.lit("")).otherwise(pl.col("error_type") + ": ")
    failures = failed.select(
        problem=pl.col("status"),
        model="model",
        task="task",
        strategy="strategy",
        seed="seed",
        point="point",
        reason=kind + pl.col("error_message").fill_null("no message was recorded"),
    )
    others = [{**entry, "problem": "damaged"} for entry in damaged]
    others += [{**entry, "problem": "missing", "reason": "no result was written"} for entry in missing]
    listed = [{name: entry.get(name) for name in PROBLEM_SCHEMA} for entry in others]
    return pl.concat([failures.cast(PROBLEM_SCHEMA), pl.DataFrame(listed, schema=PROBLEM_SCHEMA)])  # type: ignore[arg-type]
