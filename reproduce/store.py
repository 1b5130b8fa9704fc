"""The Parquet contract: one explicit schema, atomic writes, reads that survive damaged files.

A trial is three files under the artifact folder, each with the same relative path::

    trials/model=<m>/task=<t>/strategy=<s>/seed=<n>-<run id>.parquet       one row
    steps/...                                                              one row per training step
    predictions/...                                                        one row per validation example

A file is written beside its place and renamed, the trial row last; a trial is finished when all
three exist.
"""

import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl

from lfreeze.errors import InputError
from lfreeze.recipe import field_types

SCHEMA_VERSION = 1
TABLES = ("trials", "steps", "predictions")
STATUSES = ("ok", "oom", "error", "timeout")

_UTC = pl.Datetime("us", "UTC")
_RECIPE_DTYPES = {int: pl.Int64(), float: pl.Float64(), str: pl.String()}

TRIAL_SCHEMA: dict[str, pl.DataType] = {
    # identity
    "schema_version": pl.Int32(),
    "run_id": pl.String(),
    "space": pl.String(),
    "attempt": pl.Int32(),
    "started_at": _UTC,
    "finished_at": _UTC,
    # factors; ratio is the frozen fraction of the layers that the strategy's name asks for
    "strategy": pl.String(),
    "kind": pl.String(),
    "ratio": pl.Float64(),
    "model": pl.String(),
    "task": pl.String(),
    "seed": pl.Int64(),
    # outcome
    "status": pl.String(),
    "error_type": pl.String(),
    "error_message": pl.String(),
    # accuracy, as fractions of 1
    "validation_accuracy": pl.Float64(),
    "n_validation": pl.Int64(),
    "majority_accuracy": pl.Float64(),
    "label_names": pl.List(pl.String()),
    # speed: over the timed steps of the final phase
    "step_seconds_median": pl.Float64(),
    "step_seconds_q25": pl.Float64(),
    "step_seconds_q75": pl.Float64(),
    "seconds_per_10_steps": pl.Float64(),
    "n_timed_steps": pl.Int64(),
    "probe_step_seconds_median": pl.Float64(),
    "selection_seconds": pl.Float64(),
    "setup_seconds": pl.Float64(),
    "train_seconds": pl.Float64(),
    "eval_seconds": pl.Float64(),
    "total_seconds": pl.Float64(),
    "gap_seconds": pl.Float64(),
    "worker_trial_index": pl.Int64(),
    "tokens": pl.Int64(),
    "exclusive": pl.Boolean(),
    # memory
    "memory_method": pl.String(),
    "static_bytes": pl.Int64(),
    "peak_allocated_bytes": pl.Int64(),
    "peak_reserved_bytes": pl.Int64(),
    "training_bytes": pl.Int64(),
    "probe_peak_bytes": pl.Int64(),
    "probe_training_bytes": pl.Int64(),
    "weights_bytes": pl.Int64(),
    "gradient_bytes": pl.Int64(),
    "optimiser_bytes": pl.Int64(),
    "activation_bytes": pl.Int64(),
    "predicted_weights_bytes": pl.Int64(),
    "predicted_gradient_bytes": pl.Int64(),
    "predicted_optimiser_bytes": pl.Int64(),
    "predicted_activation_bytes": pl.Int64(),
    "predicted_training_bytes": pl.Int64(),
    # freezing; layers counted from 0
    "n_layers": pl.Int64(),
    "frozen_layers": pl.List(pl.Int64()),
    "embeddings_frozen": pl.Boolean(),
    "trainable_parameters": pl.Int64(),
    "total_parameters": pl.Int64(),
    "backward_depth": pl.Int64(),
    "planned_backward_depth": pl.Int64(),
    "frozen_unchanged": pl.Boolean(),
    "every_trainable_got_gradient": pl.Boolean(),
    "optimiser_holds_trainable": pl.Boolean(),
    "layer_changes": pl.List(pl.Float64()),
    "switch_step": pl.Int64(),
    # recipe
    **{f"recipe_{name}": _RECIPE_DTYPES.get(t, pl.List(pl.String())) for name, t in field_types().items()},
    # inputs
    "model_id": pl.String(),
    "model_revision": pl.String(),
    "weights_hash": pl.String(),
    "tokenizer_hash": pl.String(),
    "dataset_id": pl.String(),
    "dataset_revision": pl.String(),
    "dataset_fingerprint": pl.String(),
    "n_train": pl.Int64(),
    # provenance
    "git_commit": pl.String(),
    "git_dirty": pl.Boolean(),
    "image_digest": pl.String(),
    "lfreeze_version": pl.String(),
    "python_version": pl.String(),
    "torch_version": pl.String(),
    "transformers_version": pl.String(),
    "peft_version": pl.String(),
    "ray_version": pl.String(),
    "package_versions_json": pl.String(),
    "platform": pl.String(),
    "device": pl.String(),
    "cuda_version": pl.String(),
    "cudnn_version": pl.String(),
    "driver_version": pl.String(),
    "gpu_name": pl.String(),
    "gpu_memory_bytes": pl.Int64(),
    "gpu_share": pl.Float64(),
    "cpu_model": pl.String(),
    "attention_implementation": pl.String(),
    "deterministic_algorithms": pl.Boolean(),
    # why a column above is null: no null without a reason
    "null_reasons": pl.List(pl.Struct({"column": pl.String(), "reason": pl.String()})),
}

STEP_SCHEMA: dict[str, pl.DataType] = {
    "run_id": pl.String(),
    "step": pl.Int32(),  # from 1
    "phase": pl.String(),  # "probe" before an adaptive switch, else "train"
    "loss": pl.Float64(),
    "learning_rate": pl.Float64(),
    "grad_norm": pl.Float64(),  # before clipping
    "seconds": pl.Float64(),
    "tokens": pl.Int64(),
    "timed": pl.Boolean(),  # whether the step counts for the trial's step time
}

PREDICTION_SCHEMA: dict[str, pl.DataType] = {
    "run_id": pl.String(),
    "example_id": pl.String(),
    "label": pl.Int32(),  # index into the trial's label_names
    "prediction": pl.Int32(),
    "logits": pl.List(pl.Float32()),
}

SCHEMAS = dict(zip(TABLES, (TRIAL_SCHEMA, STEP_SCHEMA, PREDICTION_SCHEMA), strict=True))


class StoreError(InputError):
    """An artifact folder, file or row that breaks the contract; the message says which and how."""


@dataclass(frozen=True)
class TrialResult:
    """What one trial leaves: its row, and the two tables by column."""

    row: Mapping[str, Any]
    steps: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    predictions: Mapping[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Damaged:
    """A file that could not be read; its trial counts as missing."""

    path: Path
    reason: str


@dataclass(frozen=True)
class TrialTable:
    """The trial rows of one or more artifact folders, and the files that could not be read.

    ``frame`` has the columns of ``TRIAL_SCHEMA`` and ``artifacts``, the folder's name.
    """

    frame: pl.DataFrame
    damaged: tuple[Damaged, ...]


def relative_path(model: str, task: str, strategy: str, seed: int, run_id: str) -> Path:
    """Where a trial's files lie below each table's folder; a pure function of the trial."""
    parts = {"model": model, "task": task, "strategy": strategy}
    folders = [f"{name}={quote(value, safe='')}" for name, value in parts.items()]
    return Path(*folders) / f"seed={seed}-{run_id}.parquet"


def _path_of(row: Mapping[str, Any]) -> Path:
    return relative_path(row["model"], row["task"], row["strategy"], row["seed"], row["run_id"])


def trial_frame(row: Mapping[str, Any]) -> pl.DataFrame:
    """The one-row frame of ``row``, checked: every column known, no null without a reason.

    Raises:
        StoreError: a column is unknown, or null without a reason in ``null_reasons``.
    """
    unknown = sorted(set(row) - set(TRIAL_SCHEMA))
    if unknown:
        raise StoreError(f"a trial row has no column {', '.join(unknown)}")
    explained = {entry["column"] for entry in row.get("null_reasons") or ()}
    silent = [name for name in TRIAL_SCHEMA if row.get(name) is None and name not in explained]
    if silent:
        raise StoreError(f"null without a reason in column {', '.join(silent)}")
    return pl.DataFrame({name: [row.get(name)] for name in TRIAL_SCHEMA}, schema=TRIAL_SCHEMA)


def write_trial(root: Path, result: TrialResult) -> None:
    """Write a trial's three files, the row last; an earlier attempt's row is removed first."""
    row = trial_frame(result.row)
    relative, run_id = _path_of(result.row), result.row["run_id"]
    (root / "trials" / relative).unlink(missing_ok=True)
    for table in ("steps", "predictions"):
        columns: Mapping[str, Sequence[Any]] = getattr(result, table)
        length = len(next(iter(columns.values()), ()))
        data = {"run_id": [run_id] * length, **columns}
        schema = SCHEMAS[table]
        frame = pl.DataFrame({name: data.get(name, []) for name in schema}, schema=schema)
        _write(frame, root / table / relative)
    _write(row, root / "trials" / relative)


def _write(frame: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            frame.write_parquet(file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_trials(roots: Iterable[Path]) -> TrialTable:
    """Every finished trial of the given artifact folders, and what could not be read.

    Raises:
        StoreError: a folder holds no trials at all, or is not there.
    """
    frames, damaged = [], []
    for root in roots:
        if not (root / "trials").is_dir():
            raise StoreError(f"{root} is not an artifact folder: it has no folder 'trials'")
        files = sorted((root / "trials").rglob("*.parquet"))
        whole = []
        for path in files:
            problem = _problem(root, path)
            if problem:
                damaged.append(problem)
            else:
                whole.append(path)
        if whole:
            frame = _read_files(whole, damaged)
            name = root.resolve().name
            frames.append(frame.with_columns(pl.lit(name).alias("artifacts")))
    schema = {**TRIAL_SCHEMA, "artifacts": pl.String()}
    frame = pl.concat(frames) if frames else pl.DataFrame(schema=schema)
    return TrialTable(frame, tuple(damaged))


def _problem(root: Path, path: Path) -> Damaged | None:
    """Why a trial whose row lies at ``path`` is not finished, if it is not."""
    relative = path.relative_to(root / "trials")
    for table in TABLES:
        file = root / table / relative
        if not file.is_file():
            return Damaged(file, "the file is missing")
        if not _has_parquet_ends(file):
            return Damaged(file, "the file is cut short or is not Parquet")
    return None


def _has_parquet_ends(path: Path) -> bool:
    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            return False
        file.seek(-4, os.SEEK_END)
        return file.read(4) == b"PAR1"


def _read_files(paths: Sequence[Path], damaged: list[Damaged]) -> pl.DataFrame:
    """The rows of ``paths``; files that cannot be read or have another schema go to ``damaged``."""
    options: dict[str, Any] = {"hive_partitioning": False, "glob": False}
    try:
        frame = pl.scan_parquet(list(paths), **options).collect()
        if dict(frame.schema) == TRIAL_SCHEMA and (frame["schema_version"] == SCHEMA_VERSION).all():
            return frame
    except (pl.exceptions.PolarsError, OSError):
        pass
    frames = [pl.DataFrame(schema=TRIAL_SCHEMA)]
    for path in paths:
        try:
            frame = pl.read_parquet(path, **options)
        except (pl.exceptions.PolarsError, OSError) as error:
            damaged.append(Damaged(path, str(error).splitlines()[0]))
            continue
        if dict(frame.schema) == TRIAL_SCHEMA:
            frames.append(frame)
        else:
            version = frame["schema_version"][0] if "schema_version" in frame.columns else "none"
            reason = f"its schema version is {version}, this program reads {SCHEMA_VERSION}"
            damaged.append(Damaged(path, reason))
    return pl.concat(frames)


def scan_table(roots: Iterable[Path], table: str) -> pl.LazyFrame:
    """The steps or predictions of every finished trial of the given folders, lazily."""
    files: list[Path] = []
    for root in roots:
        for path in sorted((root / "trials").rglob("*.parquet")):
            if _problem(root, path) is None:
                files.append(root / table / path.relative_to(root / "trials"))
    if not files:
        return pl.LazyFrame(schema=SCHEMAS[table])
    return pl.scan_parquet(files, hive_partitioning=False, glob=False)
