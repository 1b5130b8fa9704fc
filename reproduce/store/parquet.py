"""The Parquet contract: atomic writes, reads that survive damaged files (columns: ``reproduce.store.schema``).

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
from reproduce.store.schema import SCHEMA_VERSION, SCHEMAS, TABLES, TRIAL_SCHEMA

# In a folder of published results: every trial's row in one file, without steps and predictions.
PUBLISHED = "trials.parquet"


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

    ``frame`` has the columns of ``TRIAL_SCHEMA`` and ``artifacts``, the folder's name; ``steps`` and
    ``predictions`` are the other files that belong to its trials.
    """

    frame: pl.DataFrame
    damaged: tuple[Damaged, ...]
    steps: tuple[Path, ...] = ()
    predictions: tuple[Path, ...] = ()


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
        frame = pl.DataFrame({name: data.get(name, [None] * length) for name in schema}, schema=schema)
        write_table(frame, root / table / relative)
    write_table(row, root / "trials" / relative)


def write_table(frame: pl.DataFrame, path: Path) -> None:
    """Write a Parquet file beside its place and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            # Statistics would double a file of one row, and help no one to skip it.
            frame.write_parquet(file, compression="zstd", statistics=False)
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
    others: dict[str, list[Path]] = {"steps": [], "predictions": []}
    for root in roots:
        # A sweep's folder stays one, even if published rows lie in it too.
        swept = (root / "trials").is_dir()
        whole = [] if swept or not (root / PUBLISHED).is_file() else [root / PUBLISHED]
        if not whole and not swept:
            raise StoreError(f"{root} is not an artifact folder: it has no folder 'trials'")
        for table, paths in others.items():
            paths += [path for path in [root / f"{table}.parquet"] if whole and path.is_file()]
        for path in sorted((root / "trials").rglob("*.parquet")):
            problem = _problem(root, path)
            if problem:
                damaged.append(problem)
            else:
                whole.append(path)
                for table, paths in others.items():
                    paths.append(root / table / path.relative_to(root / "trials"))
        if whole:
            frame = _read_files(whole, damaged)
            name = root.resolve().name
            frames.append(frame.with_columns(pl.lit(name).alias("artifacts")))
    schema = {**TRIAL_SCHEMA, "artifacts": pl.String()}
    frame = pl.concat(frames) if frames else pl.DataFrame(schema=schema)
    return TrialTable(frame, tuple(damaged), *map(tuple, others.values()))


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


def scan_table(tables: Iterable[TrialTable], name: str) -> pl.LazyFrame | None:
    """The steps or predictions of trials that were read, lazily; None without any file."""
    files = [path for table in tables for path in getattr(table, name)]
    return pl.scan_parquet(files, hive_partitioning=False, glob=False) if files else None
