"""The numbers of the paper's Figures 3 to 6; every frame has a column n."""

from __future__ import annotations

import polars as pl

from reproduce.report.analysis.aggregates import (
    DIGITS,
    EXPERIMENT,
    accuracy,
    after_switch,
    efficiency,
    ranking,
    speed_trials,
    successful,
    training_peak,
)
from reproduce.report.strategy_order import BASELINE, in_order, strategies_in_order


def figure_3_data(trials: pl.DataFrame) -> pl.DataFrame:
    """Accuracy by strategy: model, task, strategy, mean, std, n, majority, baseline_mean, baseline_std.

    Every strategy of the trials has a row in every experiment, with n = 0 where it has no result.
    """
    means = accuracy(trials)
    pairs = means.select(EXPERIMENT).unique()
    grid = pairs.join(means.select("strategy").unique(), how="cross")
    keys = [*EXPERIMENT, "strategy"]
    filled = grid.join(means, on=keys, how="left").with_columns(pl.col("n").fill_null(0))
    is_baseline = pl.col("strategy") == BASELINE
    return in_order(
        filled.with_columns(
            majority=pl.col("majority").drop_nulls().first().over(EXPERIMENT),
            baseline_mean=pl.col("mean").filter(is_baseline).first().over(EXPERIMENT),
            baseline_std=pl.col("std").filter(is_baseline).first().over(EXPERIMENT),
        )
    )


def figure_4_data(trials: pl.DataFrame) -> pl.DataFrame:
    """Speed against accuracy on CB, which the paper's caption names, and MNLI, which its text names."""
    return _speed_data(trials.filter(_of_figure_4()))


def other_speed_data(trials: pl.DataFrame) -> pl.DataFrame:
    """Speed against accuracy on the tasks that Figure 4 does not show."""
    return _speed_data(trials.filter(~_of_figure_4()))


def is_task(*tasks: str) -> pl.Expr:
    """Whether a trial is of one of these tasks of the paper, or of its miniature."""
    return pl.col("task").str.strip_prefix("tiny-").is_in(tasks)


def _of_figure_4() -> pl.Expr:
    return is_task("cb", "mnli")


def _speed_data(trials: pl.DataFrame) -> pl.DataFrame:
    """Speed against accuracy: model, task, strategy, seconds, mean, unfrozen_share, n_speed, n, exclusive.

    ``seconds`` is the median over seeds of the seconds of the first 10 training steps, an adaptive
    strategy's layer selection included; ``unfrozen_share`` is 14 of 18 for BOT25 on Gemma. Strategies that
    lack a time or an accuracy are omitted; ``without_speed`` names them.
    """
    keys = [*EXPERIMENT, "strategy"]
    joined = accuracy(trials).join(
        efficiency(trials).select(*keys, "first_10_steps_seconds", "unfrozen_share", "n_speed", "exclusive"),
        on=keys,
    )
    drawn = joined.rename({"first_10_steps_seconds": "seconds"}).drop_nulls(["seconds", "mean"])
    return in_order(
        drawn.select(*keys, "seconds", "mean", "unfrozen_share", "n_speed", "n", "exclusive", "majority")
    )


def without_speed(trials: pl.DataFrame, drawn: pl.DataFrame, *, of_figure_4: bool) -> list[str]:
    """Strategies of an experiment, as ``strategy (model, task)``, that Figure 4, or that of the other tasks, omits."""
    keys = [*EXPERIMENT, "strategy"]
    planned = trials.filter(_of_figure_4() if of_figure_4 else ~_of_figure_4()).select(keys).unique()
    absent = in_order(planned.join(drawn, on=keys, how="anti"))
    return [f"{row['strategy']} ({row['model']}, {row['task']})" for row in absent.to_dicts()]


def figure_5_data(trials: pl.DataFrame) -> pl.DataFrame:
    """Memory by model and strategy, over all tasks and seeds, in bytes.

    A task's value is its mean over seeds, the model's the mean over its tasks. Columns: static,
    training (the peak of the whole run), after_switch (null unless adaptive), reduction (1 - the mean
    over tasks of training memory / ALL's on that task; null without ALL), n (trials), n_tasks. A strategy
    without a result on a model has n = 0.
    """
    per_task = (
        successful(trials)
        .lazy()
        .drop_nulls(["static_bytes", "training_bytes"])
        .group_by([*EXPERIMENT, "strategy"])
        .agg(
            static=pl.col("static_bytes").mean(),
            training=training_peak().mean(),
            after_switch=after_switch().mean(),
            n=pl.len(),
        )
    )
    baseline = pl.col("training").filter(pl.col("strategy") == BASELINE).first().over(EXPERIMENT)
    compared = per_task.with_columns(ratio=pl.when(baseline > 0).then(pl.col("training") / baseline))
    per_model = compared.group_by("model", "strategy").agg(
        pl.col("static", "training", "after_switch").mean(),
        reduction=1 - pl.col("ratio").mean().round(DIGITS),
        n=pl.col("n").sum(),
        n_tasks=pl.len(),
    )
    measured = per_model.collect()
    grid = measured.select("model").unique().join(trials.select("strategy").unique(), how="cross")
    filled = grid.join(measured, on=["model", "strategy"], how="left")
    return in_order(filled.with_columns(pl.col("n", "n_tasks").fill_null(0)))


def figure_6_data(trials: pl.DataFrame) -> pl.DataFrame:
    """Ranking scores, the highest first: strategy, score, std, n, most."""
    # Accuracies of random weights are meaningless.
    return ranking(trials.filter(pl.col("weights") == "pretrained"))


def shared_experiments(trials: pl.DataFrame) -> list[tuple[str, str]]:
    """Experiments whose step times were measured while other trials used the same device."""
    shared = speed_trials(trials).filter(~pl.col("exclusive"))
    return sorted(set(shared.select(EXPERIMENT).iter_rows()))


def without_result(trials: pl.DataFrame) -> list[str]:
    """Strategies without any successful trial."""
    return strategies_in_order(set(trials["strategy"]) - set(successful(trials)["strategy"]))
