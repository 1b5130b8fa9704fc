"""McNemar's exact tests between trials that share an evaluation set."""

from __future__ import annotations

import polars as pl

from reproduce.report.analysis.aggregates import EXPERIMENT, successful
from reproduce.report.analysis.inference import holm, mcnemar_p
from reproduce.report.analysis.report_data import ReportData
from reproduce.report.formatting import percent
from reproduce.report.strategy_order import BASELINE, in_order
from reproduce.report.text.tables import Column, Table

_ALPHA = 0.05
_SCHEMA = {
    **dict.fromkeys((*EXPERIMENT, "strategy"), pl.String),
    **dict.fromkeys(("n", "n_examples", "only_baseline_right", "only_strategy_right"), pl.Int64),
    "difference": pl.Float64,
    "least_p_holm": pl.Float64,
    "n_significant": pl.Int64,
}


def prediction_differences(report_data: ReportData, against: str = BASELINE) -> pl.DataFrame | None:
    """McNemar's exact test of each trial against ``against``'s trial with the same model, task and seed.

    Returns:
        None without predictions. By model, task and strategy: n (pairs of trials that predicted the same
        examples), n_examples (over all pairs), only_baseline_right and only_strategy_right (examples that
        only one of the two predicted correctly), difference (of the accuracies over these examples), least_p_holm (the smallest p-value,
        adjusted over the pairs) and n_significant (pairs whose adjusted p-value is below 0.05).
    """
    pairs = _pairs(report_data, against)
    if pairs is None:
        return None
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


def _pairs(report_data: ReportData, against: str) -> pl.DataFrame | None:
    """Pairs of trials with the same examples, and the numbers of examples on which they disagree."""
    keys = [*EXPERIMENT, "strategy", "seed"]
    cells = successful(report_data.trials).select(
        "run_id", *keys, "n_validation", pl.struct(*EXPERIMENT, "seed").rank("dense").alias("cell")
    )
    is_reference = pl.col("strategy") == against
    known = cells.filter(is_reference).select("cell", expected="n_validation")

    def disagreements(predictions: pl.LazyFrame) -> pl.LazyFrame:
        right = predictions.select(
            "run_id",
            # A hash of fixed width keeps joins over millions of examples small.
            example=pl.col("example_id").hash(),
            right=pl.col("label") == pl.col("prediction"),
        ).join(cells.lazy().select("run_id", "cell", is_reference), on="run_id")
        mine, theirs = right.filter(~pl.col("strategy")), right.filter(pl.col("strategy"))
        return (
            mine.join(theirs.select("cell", "example", reference="right"), on=["cell", "example"])
            .group_by("run_id")
            .agg(
                n=pl.len(),
                only_baseline_right=(pl.col("reference") & ~pl.col("right")).sum(),
                only_strategy_right=(~pl.col("reference") & pl.col("right")).sum(),
            )
        )

    compared = report_data.read("predictions", disagreements)
    if compared is None:
        return None
    same = (pl.col("n") == pl.col("n_validation")) & (pl.col("n") == pl.col("expected"))
    pairs = compared.join(cells, on="run_id").join(known, on="cell").filter(same)
    return in_order(pairs.select(*keys, "n", "only_baseline_right", "only_strategy_right"))


def agreement_layout(frame: pl.DataFrame) -> Table:
    def word(name: str) -> Column:
        return Column(name, lambda row: row[name], numeric=False)

    def count(header: str, name: str) -> Column:
        return Column(header, lambda row: f"{row[name]:,}", value=lambda row: row[name])

    columns = (
        *map(word, ("model", "task", "strategy")),
        count("examples", "n_examples"),
        count(f"only {BASELINE} correct", "only_baseline_right"),
        count("only the strategy correct", "only_strategy_right"),
        Column(
            "difference, points", lambda row: percent(row["difference"]), value=lambda row: row["difference"]
        ),
        Column("smallest p", lambda row: f"{row['least_p_holm']:.2g}", value=lambda row: row["least_p_holm"]),
        count("pairs with p < 0.05", "n_significant"),
        count("n pairs", "n"),
    )
    note = (
        f"McNemar's exact test of each trial against {BASELINE}'s with the same model, task and seed, on the "
        "examples that only one of the two predicted correctly; p-values are adjusted by Holm's method over the "
        "pairs of a row. Each pair contributes all its examples to the counts."
    )
    return Table("predictions_compared", "Example by example", note, frame, columns)
