"""Checksums of a trial's content: of its row and of its other tables.

Each is the SHA-256 of the values as JSON, whatever the file that holds them: published rows keep theirs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import polars as pl

from reproduce.store.schema import CHECKSUM_COLUMNS, ORDER_IN_TABLE, ROW_CHECKSUM, SCHEMAS, TRIAL_COLUMNS

# The first schema version whose rows carry checksums.
SINCE = TRIAL_COLUMNS[ROW_CHECKSUM].since


def row_checksum(row: dict[str, Any]) -> str:
    """The checksum of a row's columns by name, itself left out.

    Columns that the row's schema version did not have are left out: later versions read the row with them.
    """
    version = row["schema_version"]
    values = {
        name: row[name]
        for name, column in TRIAL_COLUMNS.items()
        if column.since <= version and name != ROW_CHECKSUM
    }
    reasons = {entry["column"]: entry["reason"] for entry in row["null_reasons"]}
    values["null_reasons"] = {name: why for name, why in reasons.items() if values.get(name, "") is None}
    return _digest(values)


def table_checksum(rows: pl.DataFrame, table: str) -> str:
    """The checksum of one trial's rows of a table other than the trials', in whatever order they are.

    Columns without any value are left out: later versions read the rows with columns that these lack.
    """
    ordered = rows.select([name for name in SCHEMAS[table] if name != "run_id"]).sort(ORDER_IN_TABLE[table])
    columns = [column for column in ordered if column.null_count() < ordered.height]
    return _digest({column.name: column.to_list() for column in columns})


def changed_rows(frame: pl.DataFrame) -> list[bool]:
    """For each row, whether it carries a checksum that is not its own."""
    checked = frame.with_columns(pl.col(ROW_CHECKSUM).is_not_null().alias("checked"))["checked"]
    wrong = [False] * frame.height
    for index, row in zip(checked.arg_true(), frame.filter(checked).iter_rows(named=True), strict=True):
        wrong[index] = row_checksum(row) != row[ROW_CHECKSUM]
    return wrong


def changed_tables(frame: pl.DataFrame, table: str, rows: pl.DataFrame) -> Iterator[str]:
    """The run ids of the trials whose rows of a table do not have the checksum that the trial's row carries."""
    column = CHECKSUM_COLUMNS[table]
    by_trial = {run_id: part for (run_id,), part in rows.partition_by("run_id", as_dict=True).items()}
    empty = rows.clear()
    for run_id, expected in frame.select("run_id", column).drop_nulls().iter_rows():
        if table_checksum(by_trial.get(run_id, empty), table) != expected:
            yield run_id


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()
