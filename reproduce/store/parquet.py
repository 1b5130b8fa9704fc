"""The Parquet contract: atomic writes, reads that survive damaged files (columns: ``reproduce.store.trial_row``).

A trial is three files under the artifact folder, each with the same relative path::

    trials/model=<m>/task=<t>/strategy=<s>/seed=<n>-<run id>.parquet       one row
    steps/...                                                              one row per training step
    predictions/...                                                        one row per validation example

Each file is written under a temporary name and renamed, the trial row last; a trial is finished when all
three exist. Files of earlier schema versions are completed while they are read: a column that they lack has
the value that the table of columns gives for older rows.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl

from lfreeze.atomic import write_atomically
from lfreeze.errors import first_line
from reproduce.store.columns import StoreError as StoreError
from reproduce.store.schema import SCHEMA_VERSION, SCHEMAS, TABLES, TRIAL_COLUMNS, TRIAL_SCHEMA
from reproduce.store.trial_row import TrialRow

# In a folder of published results: every trial's row in one file.
PUBLISHED = "trials.parquet"
_REASONS = TRIAL_SCHEMA["null_reasons"]


class UnreadableError(StoreError):
    """A file that this program cannot read; the message continues a sentence that begins with its path.

    Attributes:
        newer: a later version of this program wrote it.
    """

    def __init__(self, reason: str, *, newer: bool = False):
        super().__init__(reason)
        self.newer = newer


@dataclass(frozen=True)
class TrialResult:
    """What one trial leaves: its row, and its steps and predictions by column."""

    row: TrialRow
    steps: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    predictions: Mapping[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Damaged:
    """A file that could not be read; its trial counts as missing.

    Attributes:
        newer: it is not damaged: a later version of this program wrote it.
    """

    path: Path
    reason: str
    newer: bool = False


@dataclass(frozen=True)
class TrialTable:
    """The trial rows of one or more artifact folders, and the files that could not be read.

    Attributes:
        frame: the columns of ``TRIAL_SCHEMA`` and ``artifacts``, the folder's name.
        steps, predictions: the other files of its trials.
    """

    frame: pl.DataFrame
    damaged: tuple[Damaged, ...]
    steps: tuple[Path, ...] = ()
    predictions: tuple[Path, ...] = ()


def relative_path(model: str, task: str, strategy: str, seed: int, run_id: str) -> Path:
    """Where a trial's files are below each table's folder; a pure function of the trial."""
    parts = {"model": model, "task": task, "strategy": strategy}
    folders = [f"{name}={quote(value, safe='')}" for name, value in parts.items()]
    return Path(*folders) / f"seed={seed}-{run_id}.parquet"


def trial_frame(row: TrialRow) -> pl.DataFrame:
    """The one-row frame of ``row``.

    Raises:
        StoreError: a column is null and no reason is known.
    """
    values = row.columns()
    explained = {entry["column"] for entry in values["null_reasons"]}
    silent = [name for name, value in values.items() if value is None and name not in explained]
    if silent:
        raise StoreError(f"null without a reason in column {', '.join(silent)}")
    return pl.DataFrame({name: [values[name]] for name in TRIAL_SCHEMA}, schema=TRIAL_SCHEMA)


def write_trial(root: Path, result: TrialResult) -> None:
    """Write a trial's three files, the row last; an earlier attempt's row is removed first.

    Raises:
        StoreError: a column of the row is null and no reason is known.
        OSError: a file cannot be written.
    """
    row, frame = result.row, trial_frame(result.row)
    relative = relative_path(row.model, row.task, row.strategy, row.seed, row.run_id)
    (root / "trials" / relative).unlink(missing_ok=True)
    for table in ("steps", "predictions"):
        columns: Mapping[str, Sequence[Any]] = getattr(result, table)
        length = len(next(iter(columns.values()), ()))
        data = {"run_id": [row.run_id] * length, **columns}
        schema = SCHEMAS[table]
        rows = pl.DataFrame({name: data.get(name, [None] * length) for name in schema}, schema=schema)
        write_table(rows, root / table / relative)
    write_table(frame, root / "trials" / relative)


def write_table(frame: pl.DataFrame, path: Path) -> None:
    """Write a Parquet file atomically, and its folder where it is missing.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Statistics would double the size of a file of one row, and no reader could skip it by them.
    write_atomically(path, lambda file: frame.write_parquet(file, compression="zstd", statistics=False))


def read_trials(roots: Iterable[Path]) -> TrialTable:
    """Every finished trial of the given artifact folders, and the files that could not be read.

    Raises:
        StoreError: a folder does not exist or is not an artifact folder.
    """
    frames, damaged = [], []
    others: dict[str, list[Path]] = {"steps": [], "predictions": []}
    for root in roots:
        # The published rows in a sweep's own folder would repeat its trials.
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


def row_status(root: Path, relative: Path) -> str | None:
    """The status in a trial's row; None if the trial is not finished or its row cannot be read."""
    path = root / "trials" / relative
    if not path.is_file() or _problem(root, path):
        return None
    frame = _read_files([path], [])
    return str(frame["status"][0]) if frame.height else None


def _problem(root: Path, path: Path) -> Damaged | None:
    """Why the trial whose row is at ``path`` is not finished; None if it is."""
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
    """The rows of ``paths`` in the present schema; files that cannot be read are added to ``damaged``."""
    options: dict[str, Any] = {"hive_partitioning": False, "glob": False}
    try:
        # One schema in all files: read at once, which is several times faster than one by one.
        return _completed(pl.scan_parquet(list(paths), **options).collect())
    except (pl.exceptions.PolarsError, OSError, UnreadableError):
        pass
    frames = [pl.DataFrame(schema=TRIAL_SCHEMA)]
    for path in paths:
        try:
            frames.append(_completed(pl.read_parquet(path, **options)))
        except UnreadableError as error:
            damaged.append(Damaged(path, str(error), error.newer))
        except (pl.exceptions.PolarsError, OSError) as error:
            damaged.append(Damaged(path, first_line(error)))
    return pl.concat(frames)


def _completed(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows of any schema version up to the present one, with the present columns.

    Columns that this program does not know are left out.

    Raises:
        UnreadableError: the rows have a later schema version, lack a column that every version has, or have
            one of another type.
    """
    schema = dict(frame.schema)
    if schema == TRIAL_SCHEMA and (frame["schema_version"] <= SCHEMA_VERSION).all():
        return frame
    if schema.get("schema_version") != TRIAL_SCHEMA["schema_version"]:
        raise UnreadableError("has no schema version")
    version = frame["schema_version"].max()
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UnreadableError(
            f"has schema version {version}; this program reads versions up to {SCHEMA_VERSION}", newer=True
        )
    lacking = [column for name, column in TRIAL_COLUMNS.items() if name not in schema]
    for column in lacking:
        if column.since == 1:
            raise UnreadableError(f"lacks the column {column.name}")
    for name, dtype in schema.items():
        if name in TRIAL_SCHEMA and dtype != TRIAL_SCHEMA[name]:
            raise UnreadableError(f"has a column {name} of type {dtype}, not {TRIAL_SCHEMA[name]}")
    added = [pl.lit(column.older, dtype=column.dtype).alias(column.name) for column in lacking]
    reasons = [{"column": c.name, "reason": c.older_reason} for c in lacking if c.older is None]
    explained = pl.concat_list("null_reasons", pl.lit(pl.Series([reasons], dtype=_REASONS)).first())
    return frame.with_columns(*added, explained.alias("null_reasons")).select(list(TRIAL_SCHEMA))


def scan_table(tables: Iterable[TrialTable], name: str) -> pl.LazyFrame | None:
    """The steps or predictions of trials that were read, lazily; None without any file.

    Columns that a file lacks are null, columns that this program does not know are left out.
    """
    files = [path for table in tables for path in getattr(table, name)]
    if not files:
        return None
    return pl.scan_parquet(
        files,
        schema=SCHEMAS[name],
        missing_columns="insert",
        extra_columns="ignore",
        hive_partitioning=False,
        glob=False,
    )
