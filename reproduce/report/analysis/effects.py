"""The numbers of two figures: differences to ALL, and the effect of single settings."""

from __future__ import annotations

import polars as pl

from lfreeze.strategy import kinds
from reproduce.report.analysis.aggregates import DIGITS, EXPERIMENT, successful, training_peak
from reproduce.report.analysis.estimands import ContrastEstimator
from reproduce.report.analysis.examples import Correctness
from reproduce.report.analysis.inference import can_reach, holm, signed_rank_p
from reproduce.report.strategy_order import BASELINE, in_order, kind_and_percent, strategies_in_order
from reproduce.store.schema import TRIAL_COLUMNS

ALL_MODELS = "all models"
_PAIR = [*EXPERIMENT, "seed"]
_SCHEMA = {
    "setting": pl.String,
    "strategy": pl.String,
    **dict.fromkeys(("accuracy", "accuracy_std", "memory", "memory_std", "time", "time_std"), pl.Float64),
    "exclusive": pl.Boolean,
    "n": pl.Int64,
}


_DIFFERENCES = {
    **dict.fromkeys(("model", "strategy"), pl.String),
    **dict.fromkeys(("difference", "low", "high"), pl.Float64),
    **dict.fromkeys(("n_blocks", "n"), pl.Int64),
    **dict.fromkeys(("p", "p_holm"), pl.Float64),
}


def effects_data(trials: pl.DataFrame, correctness: Correctness | None = None) -> pl.DataFrame:
    """Each strategy's difference in accuracy to ALL, over all models and for each; trained weights only.

    Columns: model (``ALL_MODELS`` for all; left out if there is a single one), strategy, difference (mean over
    experiments of the mean over pairs with the same seed), low and high (95 %; null if an experiment has a
    single pair), n_blocks (experiments), n (pairs), p (signed-rank test over experiments) and p_holm (adjusted
    over the strategies compared; null where no p-value of so few experiments can reach the level). Strategies
    without a pair have n = 0. Empty without ALL.
    """
    trained = successful(trials.filter(pl.col("weights") == "pretrained"))
    estimator = ContrastEstimator(trained, correctness)
    models = sorted(set(trained["model"]))
    scopes: list[tuple[str, tuple[str, ...]]] = [(ALL_MODELS, ())] if len(models) > 1 else []
    scopes += [(model, (model,)) for model in models]
    names = [name for name in strategies_in_order(trained["strategy"]) if name != BASELINE]
    if len(names) == trained["strategy"].n_unique():
        return pl.DataFrame(schema=_DIFFERENCES)
    frames = [_differences(estimator, names, label, only) for label, only in scopes]
    return pl.concat(frames) if frames else pl.DataFrame(schema=_DIFFERENCES)


def _differences(
    estimator: ContrastEstimator, names: list[str], label: str, models: tuple[str, ...]
) -> pl.DataFrame:
    rows: list[dict[str, object]] = []
    untied = dict.fromkeys(names, 0)
    for name in names:
        contrast = {name: 1.0, BASELINE: -1.0}
        estimate = estimator.estimate("accuracy", contrast, models)
        row: dict[str, object] = {"model": label, "strategy": name, "n_blocks": 0, "n": 0}
        if estimate is not None:
            blocks = estimator.blocks("accuracy", contrast, models)
            means = [float((block.values[:, 0] - block.values[:, 1]).mean()) for block in blocks]
            row |= {"difference": estimate.value, "low": estimate.low, "high": estimate.high}
            untied[name] = sum(round(mean, DIGITS) != 0 for mean in means)
            row |= {"n_blocks": estimate.n_blocks, "n": estimate.n // 2, "p": signed_rank_p(means)}
        rows.append(row)
    p_values = [row.get("p") for row in rows]
    adjusted = holm([p if isinstance(p, float) else None for p in p_values])
    n_tests = sum(p is not None for p in p_values)
    for row, p in zip(rows, adjusted, strict=True):
        row["p_holm"] = p if can_reach(untied[str(row["strategy"])], n_tests) else None
    return in_order(pl.DataFrame(rows, schema=_DIFFERENCES))


def sensitivity_data(trials: pl.DataFrame) -> pl.DataFrame:
    """The effect of each setting, over pairs of trials that differ in it alone.

    Columns: setting, strategy, accuracy (mean difference, fraction of 1; null with random weights),
    memory and time (mean ratio minus 1), each with ``_std``; exclusive, n (pairs).
    """
    ok = trials.filter(pl.col("status") == "ok").with_columns(
        training_peak().alias("training_bytes"),
        # Accuracies with random weights are meaningless.
        pl.when(pl.col("weights") == "pretrained").then("validation_accuracy").alias("validation_accuracy"),
    )
    rows = [*_embeddings(ok), *_recipes(ok)]
    return pl.DataFrame(rows, schema=_SCHEMA).with_columns(pl.selectors.float().round(DIGITS))


def _embeddings(trials: pl.DataFrame) -> list[dict[str, object]]:
    """Strategies with frozen embeddings, against the same layers frozen with trainable embeddings."""
    rows = []
    variants = _embedding_variants()
    for name in strategies_in_order(trials["strategy"]):
        kind, percent = kind_and_percent(name)
        if kind in variants and percent is not None:
            usual = f"{variants[kind]}{percent:g}"
            frozen = trials.filter(pl.col("strategy") == usual)
            trained = trials.filter(pl.col("strategy") == name)
            keys = [*_PAIR, *_recipe_columns(trials)]
            label = f"{usual}: embeddings frozen → trained"
            rows += _row(label, name, frozen.join(trained, on=keys, nulls_equal=True, suffix="_other"))
    return rows


def _embedding_variants() -> dict[str, str]:
    """Kinds that train the embeddings, each with the kind that it extends and that freezes them."""
    return {
        trained.label: frozen.label
        for trained in kinds().values()
        for frozen in kinds().values()
        if isinstance(trained, type(frozen)) and frozen.freezes_embeddings and not trained.freezes_embeddings
    }


def _recipes(trials: pl.DataFrame) -> list[dict[str, object]]:
    """For each recipe value that varies, every other value against the most frequent one."""
    columns = _recipe_columns(trials)
    rows = []
    for column in columns:
        counts = trials.group_by(column, maintain_order=True).len()
        values = counts.sort("len", descending=True, maintain_order=True)[column].to_list()
        keys = [*_PAIR, "strategy", *(name for name in columns if name != column)]
        for value in values[1:]:
            usual = trials.filter(pl.col(column).eq_missing(pl.lit(values[0])))
            other = trials.filter(pl.col(column).eq_missing(pl.lit(value)))
            label = f"{column.removeprefix('recipe_')}: {_text(column, values[0])} → {_text(column, value)}"
            rows += _row(label, "all", usual.join(other, on=keys, nulls_equal=True, suffix="_other"))
    return rows


def _recipe_columns(trials: pl.DataFrame) -> list[str]:
    return [name for name in trials.columns if name.startswith("recipe_")]


def _text(column: str, value: object) -> str:
    if value is None:
        return str(TRIAL_COLUMNS[column].reason)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _row(label: str, strategy: str, pairs: pl.DataFrame) -> list[dict[str, object]]:
    """The row of one setting, from pairs in which the other setting's columns end in ``_other``."""
    if not pairs.height:
        return []
    exclusive = pl.col("exclusive") & pl.col("exclusive_other")
    # Times on shared devices are used only where there are no others.
    timed = pairs.filter(exclusive) if pairs.select(exclusive.any()).item() else pairs
    changes = {
        "accuracy": pairs["validation_accuracy_other"] - pairs["validation_accuracy"],
        "memory": pairs["training_bytes_other"] / pairs["training_bytes"] - 1,
        "time": timed["seconds_per_10_steps_other"] / timed["seconds_per_10_steps"] - 1,
    }
    row: dict[str, object] = {"setting": label, "strategy": strategy, "n": pairs.height}
    for name, values in changes.items():
        row |= {name: values.mean(), f"{name}_std": values.std(ddof=1)}
    return [{**row, "exclusive": timed.select(exclusive.all()).item()}]
