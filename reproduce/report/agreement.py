"""Which examples two trials get right: exact tests where they share an evaluation set."""

from __future__ import annotations

import polars as pl

from reproduce.report.inference import holm, mcnemar_p
from reproduce.report.order import BASELINE, in_order
from reproduce.report.statistics import EXPERIMENT, successful

_ALPHA = 0.05
_SCHEMA = {
    **dict.fromkeys((*EXPERIMENT, "strategy"), pl.String),
    **dict.fromkeys(("n", "n_examples", "only_baseline_right", "only_strategy_right"), pl.Int64),
    "difference": pl.Float64,
    "least_p_holm": pl.Float64,
    "n_significant": pl.Int64,
}


def prediction_differences(
    trials: pl.DataFrame, predictions: pl.LazyFrame, against: str = BASELINE
) -> pl.DataFrame:
    """McNemar's exact test of each trial against that of ``against`` with the same model, task and seed.

    Args:
        predictions: as ``reproduce.store.scan_table`` gives them.

    Returns:
        By model, task and strategy: n (pairs of trials that predicted the same examples), n_examples
        (over all pairs), only_baseline_right and only_strategy_right (examples that one of the two got
        right), difference (of the accuracies over these examples), least_p_holm (the smallest p-value,
        adjusted over the pairs) and n_significant (pairs whose adjusted p-value is below 0.05).
    """
    pairs = _pairs(trials, predictions, against)
    rows = []
    for key, group in pairs.group_by([*EXPERIMENT, "strategy"], maintain_order=True):
        first, second = group["only_baseline_right"], group["only_strategy_right"]
        p_values = [p for p in holm(mcnemar_p(first, second).tolist()) if p is not None]
        examples = int(group["n"].sum())
        rows.append(
            {
                **dict(zip((*EXPERIMENT, "strategy"), key, strict=True)),
                "n": group.height,
                "n_examples": examples,
                "only_baseline_right": int(first.sum()),
                "only_strategy_right": int(second.sum()),
                "difference": (int(second.sum()) - int(first.sum())) / examples,
                "least_p_holm": min(p_values),
                "n_significant": sum(p < _ALPHA for p in p_values),
            }
        )
    return in_order(pl.DataFrame(rows, schema=_SCHEMA))


def _pairs(trials: pl.DataFrame, predictions: pl.LazyFrame, against: str) -> pl.DataFrame:
    """Pairs of trials over the same examples, with the numbers of those on which they disagree."""
    cells = successful(trials).select(
        "run_id", "strategy", "n_validation", pl.struct(*EXPERIMENT, "seed").rank("dense").alias("cell")
    )
    is_reference = pl.col("strategy") == against
    known = cells.filter(is_reference).select("cell", expected="n_validation")
    right = predictions.select(
        "run_id",
        # A fixed width in place of text: joins over millions of examples stay small.
        example=pl.col("example_id").hash(),
        right=pl.col("label") == pl.col("prediction"),
    )
    reference = right.join(cells.lazy().filter(is_reference).select("run_id", "cell"), on="run_id")
    others = right.join(cells.lazy().filter(~is_reference), on="run_id")
    joined = others.join(
        reference.select("cell", "example", reference="right"), on=["cell", "example"]
    ).group_by("run_id", "cell", "n_validation")
    found = joined.agg(
        n=pl.len(),
        only_baseline_right=(pl.col("reference") & ~pl.col("right")).sum(),
        only_strategy_right=(~pl.col("reference") & pl.col("right")).sum(),
    ).collect(engine="streaming")
    same = found.join(known, on="cell").filter(
        (pl.col("n") == pl.col("n_validation")) & (pl.col("n") == pl.col("expected"))
    )
    names = trials.select("run_id", *EXPERIMENT, "strategy", "seed").unique("run_id")
    return in_order(same.select(pl.exclude("cell", "n_validation", "expected")).join(names, on="run_id"))
