"""Reads files of trial rows of any schema version; a file or row that cannot be believed is named, never used."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from lfreeze.errors import first_line
from reproduce.store.columns import StoreError
from reproduce.store.row_faults import faults
from reproduce.store.schema import SCHEMA_VERSION, TRIAL_COLUMNS, TRIAL_SCHEMA

# What Polars raises for a file that it cannot read; a panic of its compiled code is no Exception.
READ_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
_REASONS = TRIAL_SCHEMA["null_reasons"]
_FILE = "file"
_OPTIONS: dict[str, Any] = {"hive_partitioning": False, "glob": False, "include_file_paths": _FILE}
_MOST_BYTES_PER_ROW = 1 << 20
# Of one trial's steps or predictions.
_MOST_ROWS, _MOST_BYTES = 10**7, 4 << 30
_BYTES_PER_VALUE = 16


class UnreadableError(StoreError):
    """A file that this program cannot read; the message continues a sentence that begins with its path.

    Attributes:
        newer: a later version of this program wrote it.
    """

    def __init__(self, reason: str, *, newer: bool = False):
        super().__init__(reason)
        self.newer = newer


@dataclass(frozen=True)
class Damaged:
    """A file that could not be read; its trial counts as missing.

    Attributes:
        newer: it is not damaged: a later version of this program wrote it.
    """

    path: Path
    reason: str
    newer: bool = False


def read_rows(paths: Mapping[Path, Path | None], damaged: list[Damaged]) -> pl.DataFrame:
    """The rows of some files in the present schema; what cannot be believed is added to ``damaged``.

    Args:
        paths: each file with its place below the folder of trials, where it holds the row of one trial; None for
            a file of any number of rows.
    """
    frame = _read(paths, damaged)
    files = [Path(name) for name in frame[_FILE]]
    reasons = faults(frame, [paths[file] for file in files])
    for file, reason, name in zip(files, reasons, frame.select(_name()).to_series(), strict=True):
        if reason is not None:
            damaged.append(Damaged(file, reason if paths[file] else f"the row of {name} {reason}"))
    return frame.filter(pl.Series([reason is None for reason in reasons], dtype=pl.Boolean)).drop(_FILE)


def _name() -> pl.Expr:
    factors = ("model", "task", "strategy", pl.format("seed{}", "seed"))
    return pl.concat_str(*factors, separator="/", ignore_nulls=True)


def _read(paths: Mapping[Path, Path | None], damaged: list[Damaged]) -> pl.DataFrame:
    frame = _read_at_once(paths)
    if frame is not None:
        return frame
    frames = [pl.DataFrame(schema={**TRIAL_SCHEMA, _FILE: pl.String()})]
    for path, place in paths.items():
        try:
            _require_size(path, single=place is not None)
            with no_panic_message():
                frames.append(_completed(pl.read_parquet(path, **_OPTIONS)))
        except UnreadableError as error:
            damaged.append(Damaged(path, str(error), error.newer))
        except READ_ERRORS as error:
            damaged.append(Damaged(path, first_line(error)))
    return pl.concat(frames)


def _read_at_once(paths: Mapping[Path, Path | None]) -> pl.DataFrame | None:
    """The rows of files of one schema, several times faster than one by one; None if a file is another."""
    single = all(paths.values())
    if not paths:
        return None
    with contextlib.suppress(*READ_ERRORS, UnreadableError), no_panic_message():
        for path in paths:
            _require_size(path, single=single)
        frame = _completed(pl.scan_parquet(list(paths), **_OPTIONS).collect())
        return frame if not single or frame[_FILE].n_unique() == len(paths) else None
    return None


def _require_size(path: Path, *, single: bool) -> None:
    """Refuse, by its description alone, a file that has more content than rows have, or than one row."""
    n, size = _sizes(path)
    if single and n != 1:
        raise UnreadableError(f"holds {n:,} rows, not one trial")
    if size > max(n, 1) * _MOST_BYTES_PER_ROW:
        raise UnreadableError(f"holds {size:,} bytes in {n:,} rows, more than trials have")


def require_trial_size(path: Path) -> None:
    """Refuse, by its description alone, a file with more than the steps or predictions of one trial.

    Raises:
        UnreadableError: it has, or it has no description.
    """
    n, size = _sizes(path)
    if n > _MOST_ROWS or size > _MOST_BYTES:
        raise UnreadableError(f"holds {n:,} rows of {size:,} bytes in all, more than a trial has")


def _sizes(path: Path) -> tuple[int, int]:
    """Rows of a file, and bytes that they take in memory at most: some kilobytes on disk may be gigabytes there."""
    from pyarrow import ArrowException, parquet

    try:
        description = parquet.read_metadata(path)
    except (ArrowException, OSError, ValueError) as error:
        raise UnreadableError(first_line(error)) from None
    size = 0
    for index in range(description.num_row_groups):
        group = description.row_group(index)
        values = sum(group.column(place).num_values for place in range(group.num_columns))
        size += group.total_byte_size + values * _BYTES_PER_VALUE
    return description.num_rows, size


def _completed(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows of any schema version up to the present one, with the present columns and the file's.

    Columns that this program does not know are left out.

    Raises:
        UnreadableError: the rows have a later schema version, lack a column that every version has, or have
            one of another type.
    """
    schema = {name: dtype for name, dtype in frame.schema.items() if name != _FILE}
    if schema.get("schema_version") != TRIAL_SCHEMA["schema_version"]:
        raise UnreadableError("has no schema version")
    version = frame["schema_version"].max()
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UnreadableError(
            f"has schema version {version}; this program reads versions up to {SCHEMA_VERSION}", newer=True
        )
    if schema == TRIAL_SCHEMA:
        return frame
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
    return frame.with_columns(*added, explained.alias("null_reasons")).select(*TRIAL_SCHEMA, _FILE)


@contextlib.contextmanager
def no_panic_message() -> Iterator[None]:
    """Keep the message that compiled code prints when it panics off the terminal; the error names the file."""
    try:
        saved = os.dup(2)
    except OSError:  # standard error is closed
        yield
        return
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
