"""The trials of an artifact folder as a few files, for an archive or a report elsewhere."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from lfreeze.atomic import write_atomically
from lfreeze.errors import first_line
from reproduce.store.artifacts import LOCK_FILE, ArtifactError, FolderState
from reproduce.store.parquet import PUBLISHED, scan_table, write_table
from reproduce.store.schema import SCHEMAS, TRIAL_SCHEMA

_ORDER = ["model", "task", "strategy", "seed", "run_id"]


def publish(
    folder: Path, state: FolderState, out: Path, *, tables: tuple[str, ...] = (), incomplete: bool = False
) -> list[Path]:
    """Write every trial's row into one file, and each of ``tables`` (steps, predictions) into one file.

    Equal trials give equal files. Failed trials have their rows, too.

    Raises:
        ArtifactError: a listed trial has no result, and ``incomplete`` is not set; a sweep is writing to the
            folder; ``out`` is not empty or cannot be written; the folder does not hold one of ``tables``.
    """
    absent = len(state.missing) + state.failed.height + state.skipped.height
    if state.live:
        raise ArtifactError(f"a sweep is writing to {folder}: publish it after the sweep has ended")
    if (absent or state.table.damaged) and not incomplete:
        raise ArtifactError(
            f"{folder} is not complete: {absent} of {len(state.listed)} trials have no result; run them, or publish "
            "the finished ones with --incomplete"
        )
    if not state.table.frame.height:
        raise ArtifactError(f"{folder} holds no trial to publish")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ArtifactError(f"{out} exists and is not an empty folder: name another one")
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for table in tables:
            written.append(_write_whole(folder, state, table, out))
        if (folder / LOCK_FILE).is_file():
            lock = (folder / LOCK_FILE).read_bytes()
            write_atomically(out / LOCK_FILE, lambda file: file.write(lock))
            written.append(out / LOCK_FILE)
        # The rows come last: a folder without them does not count as published.
        write_table(state.table.frame.select(list(TRIAL_SCHEMA)).sort(_ORDER), out / PUBLISHED)
    except OSError as error:
        raise ArtifactError(f"{out} cannot be written ({error.strerror or error})") from None
    return [out / PUBLISHED, *written]


def _write_whole(folder: Path, state: FolderState, table: str, out: Path) -> Path:
    rows = scan_table([state.table], table)
    if rows is None:
        raise ArtifactError(f"{folder} holds no {table}")
    second = "step" if table == "steps" else "example_id"
    try:
        frame = rows.select(list(SCHEMAS[table])).sort("run_id", second).collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise ArtifactError(f"a file of the {table} in {folder} is damaged: {first_line(error)}") from None
    path = out / f"{table}.parquet"
    write_table(frame, path)
    return path
