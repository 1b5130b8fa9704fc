"""The Parquet contract: atomic writes, reads that survive damaged files (columns: ``reproduce.store.trial_row``).

A trial is three files under the artifact folder, each with the same relative path::

    trials/model=<m>/task=<t>/strategy=<s>/seed=<n>-<run id>.parquet       one row
    steps/...                                                              one row per training step
    predictions/...                                                        one row per validation example

Each file is written under a temporary name and renamed, the trial row last; a trial is finished when all
three exist. A trial whose recipe sets ``evaluate_every`` has a fourth file, in ``evaluations/``, without which it is
not finished. Files of earlier schema versions are completed while they are read: a column that they lack has
the value that the table of columns gives for older rows.
"""

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from lfreeze.atomic import write_atomically
from reproduce.store.checksums import row_checksum, table_checksum
from reproduce.store.columns import StoreError as StoreError
from reproduce.store.row_faults import relative_path as relative_path
from reproduce.store.row_files import READ_ERRORS as READ_ERRORS
from reproduce.store.row_files import Damaged as Damaged
from reproduce.store.row_files import UnreadableError, read_rows, require_trial_size
from reproduce.store.schema import (
    CHECKSUM_COLUMNS,
    EVALUATIONS,
    ROW_CHECKSUM,
    SCHEMAS,
    TABLES,
    TRIAL_SCHEMA,
)
from reproduce.store.trial_row import TrialRow

# In a folder of published results: every trial's row in one file.
PUBLISHED = "trials.parquet"


@dataclass(frozen=True)
class TrialResult:
    """What one trial leaves: its row, and its steps, predictions and evaluations by column."""

    row: TrialRow
    steps: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    predictions: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    evaluations: Mapping[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialTable:
    """The trial rows of one or more artifact folders, and the files that could not be read.

    Attributes:
        frame: the columns of ``TRIAL_SCHEMA`` and ``artifacts``, the folder's name.
        steps, predictions, evaluations: the other files of its trials.
    """

    frame: pl.DataFrame
    damaged: tuple[Damaged, ...]
    steps: tuple[Path, ...] = ()
    predictions: tuple[Path, ...] = ()
    evaluations: tuple[Path, ...] = ()


def trial_frame(row: TrialRow) -> pl.DataFrame:
    """The one-row frame of ``row``.

    Raises:
        StoreError: a column is null and no reason is known.
    """
    values = row.columns()
    explained = {entry["column"] for entry in values["null_reasons"]}
    absent = [name for name, value in values.items() if value is None and name != ROW_CHECKSUM]
    silent = [name for name in absent if name not in explained]
    if silent:
        raise StoreError(f"null without a reason in column {', '.join(silent)}")
    frame = pl.DataFrame({name: [values[name]] for name in TRIAL_SCHEMA}, schema=TRIAL_SCHEMA)
    return frame.with_columns(pl.lit(row_checksum(frame.row(0, named=True))).alias(ROW_CHECKSUM))


def write_trial(root: Path, result: TrialResult) -> None:
    """Write a trial's files, the row last; an earlier attempt's row is removed first.

    Raises:
        StoreError: a column of the row is null and no reason is known.
        OSError: a file cannot be written.
    """
    row = result.row
    written = [*TABLES[1:], *([EVALUATIONS] if row.recipe.evaluate_every else [])]
    tables = {table: _table_frame(result, table) for table in written}
    checksums: dict[str, Any] = {
        CHECKSUM_COLUMNS[table]: table_checksum(rows, table) for table, rows in tables.items()
    }
    frame = trial_frame(replace(row, **checksums))
    relative = relative_path(row.model, row.task, row.strategy, row.seed, row.run_id)
    (root / "trials" / relative).unlink(missing_ok=True)
    for table, rows in tables.items():
        write_table(rows, root / table / relative)
    write_table(frame, root / "trials" / relative)


def _table_frame(result: TrialResult, table: str) -> pl.DataFrame:
    columns: Mapping[str, Sequence[Any]] = getattr(result, table)
    length = len(next(iter(columns.values()), ()))
    data = {"run_id": [result.row.run_id] * length, **columns}
    schema = SCHEMAS[table]
    return pl.DataFrame({name: data.get(name, [None] * length) for name in schema}, schema=schema)


def write_table(frame: pl.DataFrame, path: Path) -> None:
    """Write a Parquet file atomically, and its folder where it is missing.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In memory first: Polars hides the system's error where a file cannot be written. Statistics would double the
    # size of a file of one row, and no reader could skip it by them.
    content = io.BytesIO()
    frame.write_parquet(content, compression="zstd", statistics=False)
    write_atomically(path, lambda file: file.write(content.getbuffer()))


def read_trials(roots: Iterable[Path]) -> TrialTable:
    """Every finished trial of the given artifact folders, and the files that could not be read.

    Raises:
        StoreError: a folder does not exist or is not an artifact folder.
    """
    frames, damaged = [], []
    others: dict[str, list[Path]] = {"steps": [], "predictions": [], EVALUATIONS: []}
    for root in roots:
        # The published rows in a sweep's own folder would repeat its trials.
        swept = (root / "trials").is_dir()
        whole: dict[Path, Path | None] = {}
        if not swept and (root / PUBLISHED).is_file():
            whole[root / PUBLISHED] = None
        if not whole and not swept:
            raise StoreError(f"{root} is not an artifact folder: it has no folder 'trials'")
        for table, paths in others.items():
            paths += [path for path in [root / f"{table}.parquet"] if whole and path.is_file()]
        for path in sorted((root / "trials").rglob("*.parquet")):
            problem = _problem(root, path)
            if problem:
                damaged.append(problem)
            else:
                whole[path] = path.relative_to(root / "trials")
                for table in TABLES[1:]:
                    others[table].append(root / table / path.relative_to(root / "trials"))
        if whole:
            frame = read_rows(whole, damaged)
            if swept:
                frame = _with_evaluations(root, frame, others[EVALUATIONS], damaged)
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
    frame = _with_evaluations(root, read_rows({path: relative}, []), [], [])
    return str(frame["status"][0]) if frame.height else None


def _problem(root: Path, path: Path) -> Damaged | None:
    """Why the trial whose row is at ``path`` is not finished; None if it is."""
    relative = path.relative_to(root / "trials")
    problems = (_file_problem(root / table / relative, is_row=table == "trials") for table in TABLES)
    return next(filter(None, problems), None)


def _with_evaluations(
    root: Path, frame: pl.DataFrame, found: list[Path], damaged: list[Damaged]
) -> pl.DataFrame:
    """The rows without those that lack their file of evaluations; the other files are added to ``found``."""
    unfinished = []
    factors = frame.filter(pl.col("recipe_evaluate_every") > 0)
    for row in factors.select("model", "task", "strategy", "seed", "run_id").iter_rows():
        file = root / EVALUATIONS / relative_path(*row)
        problem = _file_problem(file)
        if problem:
            damaged.append(problem)
            unfinished.append(row[-1])
        else:
            found.append(file)
    return frame.filter(~pl.col("run_id").is_in(unfinished)) if unfinished else frame


def _file_problem(file: Path, *, is_row: bool = False) -> Damaged | None:
    if not file.is_file():
        return Damaged(file, "the file is missing")
    if not _has_parquet_ends(file):
        return Damaged(file, "the file is cut short or is not Parquet")
    try:
        # Rows are looked at when they are read.
        if not is_row:
            require_trial_size(file)
    except UnreadableError as error:
        return Damaged(file, str(error))
    return None


def _has_parquet_ends(path: Path) -> bool:
    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            return False
        file.seek(-4, os.SEEK_END)
        return file.read(4) == b"PAR1"


def scan_table(tables: Iterable[TrialTable], name: str) -> pl.LazyFrame | None:
    """The steps, predictions or evaluations of trials that were read, lazily; None without any file.

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
