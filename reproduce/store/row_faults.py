"""What a trial's row cannot say: rows of impossible values are named as damaged, never used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import polars as pl

from reproduce.store.checksums import changed_rows
from reproduce.store.schema import TRIAL_SCHEMA
from reproduce.store.trial_row import STATUSES

_FACTORS = ("model", "task", "strategy", "run_id")
_MOST_LAYERS = 100_000
_OK = pl.col("status") == "ok"
# In rows of earlier versions NaN where no step was timed.
_STEP_TIMES = (
    "step_seconds_median",
    "step_seconds_q25",
    "step_seconds_q75",
    "seconds_per_10_steps",
    "probe_step_seconds_median",
)
_FRACTIONS = ("validation_accuracy", "macro_f1", "majority_accuracy")
_FAULTS = [
    (~pl.col("status").is_in(STATUSES).fill_null(False), f"has a status other than {', '.join(STATUSES)}"),
    *((pl.col(name).fill_null("") == "", f"has an empty {name}") for name in _FACTORS),
    (pl.col("seed").is_null(), "has no seed"),
    (_OK & pl.col("validation_accuracy").is_null(), "has no validation_accuracy"),
    *((~pl.col(name).is_between(0, 1), f"has a {name} outside 0 to 1") for name in _FRACTIONS),
    (~pl.col("matthews_correlation").is_between(-1, 1), "has a matthews_correlation outside -1 to 1"),
    (_OK & (pl.col("n_validation") < 1), "has no validation examples"),
    (
        ~pl.col("n_layers").is_between(1, _MOST_LAYERS),
        f"has a number of layers outside 1 to {_MOST_LAYERS:,}",
    ),
    (
        (pl.col("frozen_layers").list.min() < 0) | (pl.col("frozen_layers").list.max() >= pl.col("n_layers")),
        "has frozen layers that its model does not have",
    ),
    *(
        (~pl.col(name).is_finite(), f"has a {name} that is not finite")
        for name, dtype in TRIAL_SCHEMA.items()
        if dtype == pl.Float64 and name not in (*_FRACTIONS, *_STEP_TIMES, "matthews_correlation")
    ),
    *((pl.col(name).is_infinite(), f"has an infinite {name}") for name in _STEP_TIMES),
]


def relative_path(model: str, task: str, strategy: str, seed: int, run_id: str) -> Path:
    """Where a trial's files are below each table's folder; a pure function of the trial."""
    parts = {"model": model, "task": task, "strategy": strategy}
    folders = [f"{name}={quote(value, safe='')}" for name, value in parts.items()]
    return Path(*folders) / f"seed={seed}-{run_id}.parquet"


def faults(frame: pl.DataFrame, places: Sequence[Path | None]) -> list[str | None]:
    """Why each row cannot be believed; None for a sound row.

    Args:
        places: for each row, where its file is below the folder of trials; None for a row of a file of many.
    """
    first = pl.coalesce(*(pl.when(fault).then(pl.lit(reason)) for fault, reason in _FAULTS))
    reasons: list[str | None] = frame.select(first)[:, 0].to_list() if frame.height else []
    factors = frame.select("model", "task", "strategy", "seed", "run_id").rows()
    for index, (place, changed) in enumerate(zip(places, changed_rows(frame), strict=True)):
        if reasons[index] is None and place is not None and place != relative_path(*factors[index]):
            reasons[index] = f"holds another trial, {relative_path(*factors[index])}"
        if reasons[index] is None and changed:
            reasons[index] = "has been changed: its checksum is not that of its content"
    return reasons
