"""Time and memory that a report takes, for 1,275 and for 127,500 trials.

    python benchmarks/report_scale.py [--keep DIR]

The trials are copies of the published miniature sweep's rows with other seeds, each with 100 training
steps and 100 predictions. The smaller folder has the form that a sweep writes, three files per trial;
the larger one the form that `reproduce publish` writes, three files in all. Each report is made by a
separate process, and its peak resident memory, summed over its worker processes, is sampled.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pyarrow.parquet as pq

from reproduce.store.parquet import TrialResult, write_trial
from reproduce.store.schema import PREDICTION_SCHEMA, STEP_SCHEMA
from reproduce.store.trial_row import TrialRow

_TRIALS = Path(__file__).parents[1] / "artifacts" / "reference" / "embedded-full" / "trials.parquet"
_STEPS, _EXAMPLES = 100, 100
_COPIES = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--keep", type=Path, help="make the folders here and keep them")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as scratch:
        folder = keep or Path(scratch)
        small, large = folder / "small", folder / "large"
        if not small.is_dir():
            write_small(small)
            write_large(large)
        for root, seconds, gibibytes in ((small, 20, 1), (large, 60, 2)):
            took, peak = measure(root, folder / f"{root.name}-report")
            print(
                f"{root.name}: {took:.1f} s (limit {seconds}), peak {peak / 2**30:.2f} GiB "
                f"(limit {gibibytes})",
                flush=True,
            )


def measure(root: Path, out: Path) -> tuple[float, int]:
    """Seconds, and the peak of the resident bytes summed over the report's processes."""
    command = [sys.executable, "-m", "reproduce", "report", str(root), "--out", str(out)]
    started, peak = time.perf_counter(), 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, resident(watched))
            time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
    return time.perf_counter() - started, peak


def resident(process: psutil.Process) -> int:
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


def copies(number: int) -> pl.DataFrame:
    """The published rows with other seeds and run ids, and a little noise in the accuracies."""
    trials = pl.read_parquet(_TRIALS)
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


def write_small(root: Path) -> None:
    """1,275 trials in the form that a sweep writes."""
    trials, random = copies(0), np.random.default_rng(0)
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


def write_large(root: Path) -> None:
    """127,500 trials in the form that `reproduce publish` writes, one copy at a time."""
    root.mkdir(parents=True)
    random = np.random.default_rng(1)
    pl.concat([copies(number) for number in range(_COPIES)]).write_parquet(root / "trials.parquet")
    for name, make in (("steps", steps_of), ("predictions", predictions_of)):
        writer = None
        for number in range(_COPIES):
            table = make(copies(number), random).to_arrow()
            writer = writer or pq.ParquetWriter(root / f"{name}.parquet", table.schema, compression="zstd")
            writer.write_table(table)
        assert writer is not None
        writer.close()


if __name__ == "__main__":
    main()
