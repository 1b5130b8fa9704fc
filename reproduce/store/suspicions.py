"""Signs of silent errors in results that are sound by themselves: one class only, equal numbers of two seeds."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from reproduce.store.schema import BIT_COLUMNS

_CELL = ["model", "task", "strategy", "point"]


def fingerprints(rows: pl.LazyFrame, table: str) -> pl.LazyFrame:
    """A ``fingerprint`` by ``run_id``, equal for trials whose rows of a table are equal to the last bit."""
    hashed = pl.struct(BIT_COLUMNS[table]).hash().bitwise_xor().alias("fingerprint")
    return rows.group_by("run_id").agg(hashed)


def one_class(predictions: pl.LazyFrame) -> pl.LazyFrame:
    """The ``run_id`` of each trial that predicts one class for all of its examples, at least two."""
    counts = predictions.group_by("run_id").agg(pl.len(), classes=pl.col("prediction").n_unique())
    return counts.filter(pl.col("classes") == 1, pl.col("len") > 1).select("run_id")


def equal_seeds(trials: pl.DataFrame, prints: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """The trials whose fingerprint is that of another seed of the same model, task and strategy.

    Args:
        trials: successful trials, with their grid's values in ``point``.
        columns: what else must be equal.
    """
    same: Sequence[str] = [*_CELL, *columns, "fingerprint"]
    joined = trials.join(prints, on="run_id")
    return joined.filter(pl.col("seed").n_unique().over(same) > 1)
