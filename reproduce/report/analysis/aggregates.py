"""Numbers behind the figures and tables: means, spreads, ranking scores, savings against ALL.

Every function takes trial rows as ``reproduce.store.parquet.read_trials`` gives them, failed ones included,
and counts what it used: no figure without its n. A cell is one (model, task, strategy, seed), an
experiment one (model, task).
"""

from __future__ import annotations

import polars as pl

from reproduce.report.strategy_order import BASELINE, in_order

CELL = ["model", "task", "strategy", "seed"]
EXPERIMENT = ["model", "task"]
# Sums taken in another order differ in their last bits: without rounding, means that are equal on
# paper would not tie, and the same trials would not always give the same report.
DIGITS = 12


def distinct_trials(trials: pl.DataFrame) -> pl.DataFrame:
    """Each run id once, whichever folders hold it; a successful attempt before a failed one."""
    return _first(trials, ["run_id"])


def one_per_cell(trials: pl.DataFrame) -> pl.DataFrame:
    """Each cell once: a successful trial before a failed one, then the folder that was named first.

    Folders with different recipes are thus never averaged into one number.
    """
    return _first(trials, CELL)


def _first(trials: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    # Sorted by their places alone: rows are wide, and are to be copied once.
    names = list(dict.fromkeys([*keys, *CELL, "status"]))
    places = trials.select(names).with_row_index("place")
    ok_first = places.sort(pl.col("status") != "ok", maintain_order=True)
    kept = in_order(ok_first.unique(keys, keep="first", maintain_order=True))["place"]
    return trials if kept.equals(places["place"]) else trials[kept]


def successful(trials: pl.DataFrame) -> pl.DataFrame:
    """The cells with a result."""
    return one_per_cell(trials).filter(pl.col("status") == "ok")


def speed_trials(trials: pl.DataFrame) -> pl.DataFrame:
    """The cells whose step times may be compared.

    In an experiment only the trials of one kind of device count, and either those that had it to
    themselves or, where ``exclusive`` is False, those that shared it, so that no comparison mixes them.
    Of several such groups: one with ALL, which the others are compared with, then one that had its device
    to itself, then the largest.
    """
    timed = _timed(trials).with_columns(pl.col("exclusive").fill_null(False))
    chosen = (
        timed.group_by(*EXPERIMENT, "exclusive", "device_kind")
        .agg(with_all=(pl.col("strategy") == BASELINE).any(), n=pl.len())
        .sort("with_all", "exclusive", "n", "device_kind", descending=[True, True, True, False])
        .unique(EXPERIMENT, keep="first", maintain_order=True)
    )
    kept = timed.join(chosen, on=[*EXPERIMENT, "exclusive", "device_kind"], how="semi", maintain_order="left")
    return one_per_cell(kept.drop("device_kind"))


def timed_devices(trials: pl.DataFrame) -> list[str]:
    """The kinds of devices of experiments whose times were taken on more than one; empty if there are none."""
    kinds = _timed(trials).select(*EXPERIMENT, "device_kind").unique()
    return sorted(set(kinds.filter(pl.len().over(EXPERIMENT) > 1)["device_kind"]))


def _timed(trials: pl.DataFrame) -> pl.DataFrame:
    """The successful trials with a time, and the ``device_kind`` that it was taken on."""
    timed = trials.filter(pl.col("status") == "ok", pl.col("seconds_per_10_steps").is_not_null())
    return timed.with_columns(device_kind=pl.coalesce("gpu_name", "cpu_model", pl.lit("")))


def accuracy(trials: pl.DataFrame) -> pl.DataFrame:
    """Validation accuracy, as a fraction of 1, over the seeds of each (model, task, strategy).

    Columns: mean, std (sample standard deviation; null for one seed), n, majority (accuracy of the
    most frequent label). A strategy without any successful trial keeps its row, with n = 0.
    """
    value = pl.col("validation_accuracy")
    found = (
        successful(trials)
        .lazy()
        .group_by([*EXPERIMENT, "strategy"])
        .agg(mean=value.mean().round(DIGITS), std=value.std(ddof=1).round(DIGITS), n=value.count())
    )
    majority = (
        trials.lazy().group_by(EXPERIMENT).agg(majority=pl.col("majority_accuracy").drop_nulls().first())
    )
    asked = trials.lazy().select([*EXPERIMENT, "strategy"]).unique()
    joined = asked.join(found, on=[*EXPERIMENT, "strategy"], how="left").join(
        majority, on=EXPERIMENT, how="left"
    )
    return in_order(joined.with_columns(pl.col("n").fill_null(0)).collect())


def ranking(trials: pl.DataFrame) -> pl.DataFrame:
    """The ranking score of §4.6: the mean of a strategy's reversed ranks over its experiments.

    In an experiment with K strategies the highest mean accuracy gets K - 1 points, the lowest 0;
    ties share the mean. Columns: strategy, score, std over experiments, n (experiments in which
    the strategy was run), most (the highest score it could have had). Highest score first.
    """
    points = (
        accuracy(trials)
        .lazy()
        .filter(pl.col("n") > 0)
        .with_columns(
            points=pl.col("mean").rank("average").over(EXPERIMENT) - 1,
            most=pl.len().over(EXPERIMENT) - 1,
        )
    )
    scores = points.group_by("strategy").agg(
        score=pl.col("points").mean().round(DIGITS),
        std=pl.col("points").std(ddof=1).round(DIGITS),
        n=pl.len(),
        most=pl.col("most").mean(),
    )
    return in_order(scores.collect()).sort("score", descending=True, maintain_order=True)


def efficiency(trials: pl.DataFrame) -> pl.DataFrame:
    """Memory and speed of each (model, task, strategy): medians over seeds, and ratios of medians to ALL's.

    Columns: static_bytes, training_bytes, probe_training_bytes (null unless adaptive), n_memory,
    seconds_per_10_steps, n_speed, exclusive, memory_ratio and time_ratio (ALL = 1; null without
    ALL), backward_depth, n_layers, trainable_share (a fraction of 1), trainable_parameters.
    """
    keys = [*EXPERIMENT, "strategy"]
    memory = (
        successful(trials)
        .lazy()
        .group_by(keys)
        .agg(
            pl.col("static_bytes", "training_bytes", "probe_training_bytes").median(),
            pl.col("backward_depth", "trainable_parameters").median(),
            pl.col("n_layers").first(),
            n_memory=pl.col("training_bytes").count(),
            trainable_share=(pl.col("trainable_parameters") / pl.col("total_parameters")).median(),
        )
    )
    speed = (
        speed_trials(trials)
        .lazy()
        .group_by(keys)
        .agg(pl.col("seconds_per_10_steps").median(), n_speed=pl.len(), exclusive=pl.col("exclusive").all())
    )
    joined = memory.join(speed, on=keys, how="left").with_columns(pl.col("n_speed").fill_null(0))
    both = joined.with_columns(
        memory_ratio=_against_baseline("training_bytes"), time_ratio=_against_baseline("seconds_per_10_steps")
    )
    return in_order(both.collect())


def _against_baseline(column: str) -> pl.Expr:
    """A column over its value for ALL in the same experiment; null where ALL is absent or zero."""
    baseline = pl.col(column).filter(pl.col("strategy") == BASELINE).first().over(EXPERIMENT)
    return pl.when(baseline > 0).then(pl.col(column) / baseline)
