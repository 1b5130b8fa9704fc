"""The trials of an artifact folder as few files, to be archived and reported from anywhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl

from reproduce.store.artifacts import LOCK_FILE, ArtifactError, Progress
from reproduce.store.parquet import PUBLISHED, scan_table, write_table
from reproduce.store.schema import SCHEMAS, TRIAL_SCHEMA

_ORDER = ["model", "task", "strategy", "seed", "run_id"]


def publish(
    folder: Path, progress: Progress, out: Path, *, tables: tuple[str, ...] = (), incomplete: bool = False
) -> list[Path]:
    """Write every trial's row into one file, and with ``tables`` the steps and predictions into one each.

    The same trials give the same files. Failed trials are rows like others.

    Raises:
        ArtifactError: a trial that was asked for has no result, and ``incomplete`` is not set; a sweep is
            writing to the folder; ``out`` is not empty, or cannot be written; a table was not kept.
    """
    absent = len(progress.missing) + progress.failed.height
    if progress.live:
        raise ArtifactError(f"a sweep is writing to {folder}: publish it when the sweep has ended")
    if (absent or progress.table.damaged) and not incomplete:
        raise ArtifactError(
            f"{folder} is not complete: {absent} of {len(progress.wanted)} trials have no result; run them, or publish "
            "what there is with --incomplete"
        )
    if not progress.table.frame.height:
        raise ArtifactError(f"{folder} holds no trial to publish")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ArtifactError(f"{out} is there already and is not an empty folder: name another one")
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for table in tables:
            written.append(_write_whole(folder, progress, table, out))
        if (folder / LOCK_FILE).is_file():
            shutil.copyfile(folder / LOCK_FILE, out / LOCK_FILE)
            written.append(out / LOCK_FILE)
        # The rows come last: without them the folder is not taken for a published one.
        write_table(progress.table.frame.select(list(TRIAL_SCHEMA)).sort(_ORDER), out / PUBLISHED)
    except OSError as error:
        raise ArtifactError(f"{out} cannot be written ({error.strerror or error})") from None
    return [out / PUBLISHED, *written]


def _write_whole(folder: Path, progress: Progress, table: str, out: Path) -> Path:
    rows = scan_table([progress.table], table)
    if rows is None:
        raise ArtifactError(f"{folder} holds no {table}")
    second = "step" if table == "steps" else "example_id"
    try:
        frame = rows.select(list(SCHEMAS[table])).sort("run_id", second).collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise ArtifactError(
            f"a file of the {table} in {folder} is damaged: {str(error).splitlines()[0]}"
        ) from None
    path = out / f"{table}.parquet"
    write_table(frame, path)
    return path
