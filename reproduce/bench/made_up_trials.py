"""Artifact folders with as many trials as wanted, to measure what reads them.

The trials are copies of the published miniature sweep's rows with other seeds, each with 100 training steps and 100
predictions.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from reproduce.store.artifacts import read_folder
from reproduce.store.parquet import TrialResult, write_trial
from reproduce.store.references import reference_path
from reproduce.store.schema import PREDICTION_SCHEMA, STEP_SCHEMA, TRIAL_COLUMNS
from reproduce.store.trial_row import TrialRow

_STEPS, _EXAMPLES = 100, 100


def write_swept(root: Path, n: int) -> None:
    """So many trials, at most as many as are published, in the form that a sweep writes: three files for each."""
    trials, random = copies(0).head(n), np.random.default_rng(0)
    whole = [steps_of(trials, random), predictions_of(trials, random)]
    steps, predictions = (
        table.partition_by("run_id", maintain_order=True, include_key=False) for table in whole
    )
    for row, step, prediction in zip(trials.iter_rows(named=True), steps, predictions, strict=True):
        tables = (step.to_dict(as_series=False), prediction.to_dict(as_series=False))
        write_trial(root, TrialResult(TrialRow.from_columns(row), *tables))
    listed = trials.select("model", "task", "strategy", "seed", "run_id").to_dicts()
    manifest = {"space": "benchmark", "recipe": {}, "inputs": {}, "trials": listed}
    (root / "sweep.json").write_text(json.dumps(manifest), "utf-8")


def write_published(root: Path, n: int) -> None:
    """So many trials in the form that ``reproduce publish`` writes, three files in all; a part at a time."""
    root.mkdir(parents=True)
    random, size = np.random.default_rng(1), copies(0).height
    parts = [(number, min(size, n - number * size)) for number in range(-(-n // size))]
    pl.concat([copies(number).head(rows) for number, rows in parts]).write_parquet(root / "trials.parquet")
    for name, make in (("steps", steps_of), ("predictions", predictions_of)):
        writer = None
        for number, rows in parts:
            table = make(copies(number).head(rows), random).to_arrow()
            writer = writer or pq.ParquetWriter(root / f"{name}.parquet", table.schema, compression="zstd")
            writer.write_table(table)
        assert writer is not None
        writer.close()


@functools.cache
def _published() -> pl.DataFrame:
    folder = reference_path("embedded-full")
    assert folder is not None
    return read_folder(folder).table.frame.select(*TRIAL_COLUMNS)


def copies(number: int) -> pl.DataFrame:
    """The published rows with other seeds and run ids, and a little noise in the accuracies."""
    trials = _published()
    random = np.random.default_rng(number)
    noise = pl.Series(random.normal(0, 0.01, trials.height))
    suffix = f"{number:04x}"
    return trials.with_columns(
        pl.col("seed") + 1000 * number,
        pl.col("run_id").str.head(28) + suffix,
        (pl.col("validation_accuracy") + noise).clip(0, 1),
        pl.lit(_EXAMPLES, pl.Int64).alias("n_validation"),
    )


def steps_of(trials: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    """``_STEPS`` training steps for each trial."""
    n = trials.height
    step = np.tile(np.arange(1, _STEPS + 1), n)
    loss = 0.7 * np.exp(-step / 40) + random.normal(0, 0.05, n * _STEPS)
    columns = {
        "run_id": trials["run_id"].gather(np.repeat(np.arange(n), _STEPS)),
        "step": step,
        "phase": pl.Series(["train"]).new_from_index(0, n * _STEPS),
        "loss": loss,
        "learning_rate": 1e-3 * (1 - step / _STEPS),
        "grad_norm": np.abs(loss),
        "seconds": random.uniform(0.03, 0.05, n * _STEPS),
        "tokens": np.full(n * _STEPS, 512),
        "timed": step > 10,
    }
    return pl.DataFrame(columns).cast(STEP_SCHEMA)  # type: ignore[arg-type]


def predictions_of(trials: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    """``_EXAMPLES`` predictions for each trial, correct at the rate of its accuracy."""
    n = trials.height
    accuracy = np.repeat(trials["validation_accuracy"].to_numpy(), _EXAMPLES)
    label = np.tile(np.arange(_EXAMPLES) % 2, n)
    right = random.random(n * _EXAMPLES) < accuracy
    names = pl.Series([f"validation-{i}" for i in range(_EXAMPLES)])
    columns = {
        "run_id": trials["run_id"].gather(np.repeat(np.arange(n), _EXAMPLES)),
        "example_id": names.gather(np.tile(np.arange(_EXAMPLES), n)),
        "label": label,
        "prediction": np.where(right, label, 1 - label),
        "logits": pl.Series(random.normal(size=(n * _EXAMPLES, 2))).arr.to_list(),
    }
    return pl.DataFrame(columns).cast(PREDICTION_SCHEMA)  # type: ignore[arg-type]
