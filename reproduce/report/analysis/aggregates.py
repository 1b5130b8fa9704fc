"""Means, spreads, ranking scores and savings against ALL, the numbers behind figures and tables.

Every function accepts trial rows as ``reproduce.store.parquet.read_trials`` returns them, failed ones
included, and returns n, the number of trials or experiments used. A cell is one (model, task, strategy, seed), an
experiment one (model, task).
"""

from __future__ import annotations

import polars as pl

from lfreeze.strategy import paper_strategies
from reproduce.report.strategy_order import BASELINE, in_order

CELL = ["model", "task", "strategy", "seed"]
EXPERIMENT = ["model", "task"]
# The last bits of a sum depend on the order of its terms: without rounding, equal means would not tie,
# and the same trials would not always give the same report.
DIGITS = 12


def training_peak() -> pl.Expr:
    """Training memory in bytes: the peak of the whole run, an adaptive trial's probe included (§3.2).

    This is what must fit; ``training_bytes`` of an adaptive trial is the peak after its switch.
    """
    return pl.max_horizontal("training_bytes", "probe_training_bytes")


def after_switch() -> pl.Expr:
    """An adaptive trial's training memory after its switch, in bytes; null for other trials."""
    return pl.when(pl.col("probe_training_bytes").is_not_null()).then("training_bytes")


def first_10_steps_seconds() -> pl.Expr:
    """Seconds of the first 10 training steps, an adaptive trial's probe and layer selection included (Figure 4).

    The steps before the switch take the probe's median, those after it the median of the rest; a selection
    after the tenth step does not count. Null where a time is unknown.
    """
    probe = pl.min_horizontal("switch_step", pl.lit(10))
    selection = pl.when(pl.col("switch_step") < 10).then("selection_seconds").otherwise(0.0)
    adaptive = (
        probe * pl.col("probe_step_seconds_median") + selection + (10 - probe) * pl.col("step_seconds_median")
    )
    return pl.when(pl.col("switch_step").is_null()).then("seconds_per_10_steps").otherwise(adaptive)


def distinct_trials(trials: pl.DataFrame) -> pl.DataFrame:
    """Each run id once over all folders; a successful attempt is preferred to a failed one."""
    return _first(trials, ["run_id"])


def one_per_cell(trials: pl.DataFrame) -> pl.DataFrame:
    """Each cell once: a successful trial is preferred to a failed one, then the folder named first.

    Trials of folders with different recipes are therefore never averaged.
    """
    return _first(trials, CELL)


def _first(trials: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    # Only row numbers are sorted, so that the wide rows are copied once.
    names = list(dict.fromkeys([*keys, *CELL, "status"]))
    places = trials.select(names).with_row_index("place")
    ok_first = places.sort(pl.col("status") != "ok", maintain_order=True)
    kept = in_order(ok_first.unique(keys, keep="first", maintain_order=True))["place"]
    return trials if kept.equals(places["place"]) else trials[kept]


def successful(trials: pl.DataFrame) -> pl.DataFrame:
    """The cells with a result."""
    return one_per_cell(trials).filter(pl.col("status") == "ok")


def speed_trials(trials: pl.DataFrame) -> pl.DataFrame:
    """The cells whose step times are comparable.

    In each experiment only trials on one kind of device are used, and either only those with exclusive use
    of it or only those that shared it. Of several such groups, one with ALL is preferred, then one with
    exclusive use, then the largest.
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
    """The kinds of devices of experiments that were timed on more than one kind; empty if there are none."""
    kinds = _timed(trials).select(*EXPERIMENT, "device_kind").unique()
    return sorted(set(kinds.filter(pl.len().over(EXPERIMENT) > 1)["device_kind"]))


def _timed(trials: pl.DataFrame) -> pl.DataFrame:
    """The successful trials with a step time, and the ``device_kind`` that was timed."""
    timed = trials.filter(pl.col("status") == "ok", pl.col("seconds_per_10_steps").is_not_null())
    return timed.with_columns(device_kind=pl.coalesce("gpu_name", "cpu_model", pl.lit("")))


def accuracy(trials: pl.DataFrame) -> pl.DataFrame:
    """Validation accuracy, as a fraction of 1, over the seeds of each (model, task, strategy).

    Columns: mean, std (sample standard deviation; null for one seed), n, majority (accuracy of the
    most frequent label). A strategy without any successful trial keeps its row, with n = 0.
    """
    value = pl.col("validation_accuracy")
    means = (
        successful(trials)
        .lazy()
        .group_by([*EXPERIMENT, "strategy"])
        .agg(mean=value.mean().round(DIGITS), std=value.std(ddof=1).round(DIGITS), n=value.count())
    )
    majority = (
        trials.lazy().group_by(EXPERIMENT).agg(majority=pl.col("majority_accuracy").drop_nulls().first())
    )
    planned = trials.lazy().select([*EXPERIMENT, "strategy"]).unique()
    joined = planned.join(means, on=[*EXPERIMENT, "strategy"], how="left").join(
        majority, on=EXPERIMENT, how="left"
    )
    return in_order(joined.with_columns(pl.col("n").fill_null(0)).collect())


def rank_points(trials: pl.DataFrame) -> pl.DataFrame:
    """The reversed ranks of §4.6 in each experiment: model, task, strategy, group, points, most, complete, n (seeds).

    The paper's strategies (``group`` "paper") are ranked among themselves: of K of them, the highest mean
    accuracy gets K - 1 points, the lowest 0, and ties share the mean of their points. Another strategy
    ("other") is placed among them without moving them: with the accuracy of one of them it has its points.
    ``complete`` says whether all of the paper's strategies have a result in the experiment.
    """
    ranked = accuracy(trials).filter(pl.col("n") > 0)
    of_paper = pl.col("strategy").is_in(paper_strategies())
    paper = ranked.filter(of_paper).with_columns(
        group=pl.lit("paper"),
        points=pl.col("mean").rank("average").over(EXPERIMENT) - 1,
        most=pl.len().over(EXPERIMENT).cast(pl.Float64) - 1,
    )
    beaten = (pl.col("mean") > pl.col("mean_paper")).cast(pl.Float64) + 0.5 * (
        pl.col("mean") == pl.col("mean_paper")
    ).cast(pl.Float64)
    other = (
        ranked.filter(~of_paper)
        .join(paper.select(*EXPERIMENT, mean_paper="mean"), on=EXPERIMENT)
        .group_by(*EXPERIMENT, "strategy", "mean", "n", maintain_order=True)
        .agg(points=beaten.sum(), most=pl.len().cast(pl.Float64) - 1)
        .with_columns(points=(pl.col("points") - 0.5).clip(0, pl.col("most")))
        .with_columns(group=pl.lit("other"))
    )
    complete = (pl.col("group") == "paper").sum().over(EXPERIMENT) == len(paper_strategies())
    columns = [*EXPERIMENT, "strategy", "group", "points", "most", "n"]
    both = pl.concat([paper.select(columns), other.select(columns)])
    return in_order(both.with_columns(complete=complete))


def ranking(trials: pl.DataFrame) -> pl.DataFrame:
    """The ranking score of §4.6: the mean of a strategy's points (``rank_points``) over its experiments.

    Columns: strategy, group, score, std over experiments, n (experiments in which the strategy was run),
    most (the highest possible score), complete (whether all of the paper's strategies have a result in each).
    The paper's strategies first, the highest score first.
    """
    scores = (
        rank_points(trials)
        .group_by("strategy", "group")
        .agg(
            score=pl.col("points").mean().round(DIGITS),
            std=pl.col("points").std(ddof=1).round(DIGITS),
            n=pl.len(),
            most=pl.col("most").mean(),
            complete=pl.col("complete").all(),
        )
    )
    return in_order(scores).sort("group", "score", descending=[True, True], maintain_order=True)


def efficiency(trials: pl.DataFrame) -> pl.DataFrame:
    """Memory and speed of each (model, task, strategy): medians over seeds, and ratios of medians to ALL's.

    Columns: static_bytes, training_bytes (the peak of the whole run), after_switch_bytes (null unless
    adaptive), n_memory, seconds_per_10_steps, first_10_steps_seconds, n_speed, exclusive, memory_ratio and
    time_ratio (ALL = 1; null without ALL), backward_depth, n_layers, trainable_share (a fraction of 1),
    frozen_share (of the layers), unfrozen_share (the rest; the share of trainable parameters where no
    layer is frozen, as for LoRA), trainable_parameters.
    """
    keys = [*EXPERIMENT, "strategy"]
    memory = (
        successful(trials)
        .lazy()
        .group_by(keys)
        .agg(
            pl.col("static_bytes", "backward_depth", "trainable_parameters").median(),
            training_peak().median().alias("training_bytes"),
            after_switch().median().alias("after_switch_bytes"),
            pl.col("n_layers").first(),
            n_memory=pl.col("training_bytes").count(),
            trainable_share=(pl.col("trainable_parameters") / pl.col("total_parameters")).median(),
            frozen_share=(pl.col("frozen_layers").list.len() / pl.col("n_layers")).median(),
        )
    )
    speed = (
        speed_trials(trials)
        .lazy()
        .group_by(keys)
        .agg(
            pl.col("seconds_per_10_steps").median(),
            first_10_steps_seconds().median().alias("first_10_steps_seconds"),
            n_speed=pl.len(),
            exclusive=pl.col("exclusive").all(),
        )
    )
    joined = memory.join(speed, on=keys, how="left").with_columns(
        pl.col("n_speed").fill_null(0),
        unfrozen_share=pl.when(pl.col("frozen_share") > 0)
        .then(1 - pl.col("frozen_share"))
        .otherwise("trainable_share"),
    )
    both = joined.with_columns(
        memory_ratio=_against_baseline("training_bytes"), time_ratio=_against_baseline("seconds_per_10_steps")
    )
    return in_order(both.collect())


def _against_baseline(column: str) -> pl.Expr:
    """A column over its value for ALL in the same experiment; null where ALL is absent or zero."""
    baseline = pl.col(column).filter(pl.col("strategy") == BASELINE).first().over(EXPERIMENT)
    return pl.when(baseline > 0).then(pl.col(column) / baseline)
