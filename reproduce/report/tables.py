"""The report's tables as frames of plain numbers; ``layout`` says how they are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from reproduce.report.order import in_order
from reproduce.report.statistics import EXPERIMENT, accuracy, distinct_trials, efficiency, ranking

_TRIALS = (
    "strategy",
    "model",
    "task",
    "seed",
    "status",
    "validation_accuracy",
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
PROBLEM_SCHEMA = {
    "problem": pl.String(),
    "model": pl.String(),
    "task": pl.String(),
    "strategy": pl.String(),
    "seed": pl.Int64(),
    "reason": pl.String(),
}
MAJORITY = "majority class"


def table_accuracy(trials: pl.DataFrame) -> pl.DataFrame:
    """Accuracy by model and strategy; for each task its mean, std (fractions of 1) and n.

    The last row of each model is the majority class, which has no std and no n.
    """
    found = accuracy(trials)
    tasks = sorted(set(found["task"]))
    baselines = found.select(*EXPERIMENT, mean="majority").unique().drop_nulls("mean")
    majority = baselines.with_columns(
        strategy=pl.lit(MAJORITY), std=pl.lit(None, pl.Float64), n=pl.lit(None, pl.UInt32)
    )
    columns = [*EXPERIMENT, "strategy", "mean", "std", "n"]
    tall = pl.concat([found.select(columns), majority.select(columns)])
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
    """Memory, step time, backward depth and trainable share; see ``statistics.efficiency``."""
    return efficiency(trials)


def table_ranking(trials: pl.DataFrame) -> pl.DataFrame:
    """Ranking scores, the highest first; see ``statistics.ranking``."""
    return ranking(trials)


def table_trials(trials: pl.DataFrame) -> pl.DataFrame:
    """Every trial, one row each; layers are counted from 0."""
    return distinct_trials(trials).select(_TRIALS)


def table_problems(
    trials: pl.DataFrame, damaged: Sequence[Mapping[str, object]], missing: Sequence[Mapping[str, object]]
) -> pl.DataFrame:
    """Trials without a result and why: failed (with their status), damaged, missing."""
    failed = distinct_trials(trials).filter(pl.col("status") != "ok")
    kind = pl.when(pl.col("error_type").is_null()).then(pl.lit("")).otherwise(pl.col("error_type") + ": ")
    failures = failed.select(
        problem=pl.col("status"),
        model="model",
        task="task",
        strategy="strategy",
        seed="seed",
        reason=kind + pl.col("error_message").fill_null("no message was recorded"),
    )
    others = [{**entry, "problem": "damaged"} for entry in damaged]
    others += [{**entry, "problem": "missing", "reason": "no result was written"} for entry in missing]
    listed = [{name: entry.get(name) for name in PROBLEM_SCHEMA} for entry in others]
    return pl.concat([failures.cast(PROBLEM_SCHEMA), pl.DataFrame(listed, schema=PROBLEM_SCHEMA)])  # type: ignore[arg-type]
