"""Results that look sound and may be an error: named where the page begins, and never left out."""

from __future__ import annotations

from functools import partial

import polars as pl

from reproduce.report.analysis.report_data import ReportData
from reproduce.report.formatting import listed, plural
from reproduce.store.grid import with_points
from reproduce.store.suspicions import equal_seeds, fingerprints, one_class

_EQUAL = {"steps": "losses and gradient norms in every step", "predictions": "logits for every example"}


def suspicions(report_data: ReportData) -> list[str]:
    """Trained models that predict one class only, and seeds whose numbers are equal to the last bit."""
    names = report_data.grid.names if report_data.grid else ()
    trials = with_points(report_data.every.filter(pl.col("status") == "ok"), names)
    texts = []
    constant = report_data.read("predictions", one_class)
    # Random weights that were hardly trained often do.
    trained = trials.filter(pl.col("weights") == "pretrained")
    if constant is not None and (found := trained.join(constant, on="run_id", how="semi")).height:
        texts.append(
            f"{plural(found.height, 'trial')} of {trained.height:,} predicted one class for every example, as a model "
            f"that has learned nothing does: {_named(found)}."
        )
    for table, what in _EQUAL.items():
        prints = report_data.read(table, partial(fingerprints, table=table))
        if prints is not None and (found := equal_seeds(trials, prints)).height:
            texts.append(
                f"{plural(found.height, 'trial')} of different seeds have the same {what}, to the last bit: the seed has "
                f"no effect there, or results were copied: {_named(found)}."
            )
    return texts


def _named(trials: pl.DataFrame) -> str:
    rows = trials.sort("model", "task", "strategy", "point", "seed").iter_rows(named=True)
    return listed([f"{r['strategy']} ({r['model']}, {r['task']}, seed {r['seed']})" for r in rows])
