"""The trials of an artifact folder as a few files, for an archive or a report elsewhere."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lfreeze.errors import first_line
from reproduce.store.artifacts import LOCK_FILE, ArtifactError, FolderState
from reproduce.store.contents import checked_contents
from reproduce.store.crate import write_crate
from reproduce.store.inputs_lock import save_lock
from reproduce.store.merge import joined_lock
from reproduce.store.parquet import PUBLISHED, READ_ERRORS, scan_table, write_table
from reproduce.store.schema import ORDER_IN_TABLE, SCHEMAS, TRIAL_SCHEMA

_ORDER = ["model", "task", "strategy", "seed", "run_id"]


def publish(
    folders: Sequence[Path],
    state: FolderState,
    out: Path,
    *,
    tables: tuple[str, ...] = (),
    incomplete: bool = False,
) -> list[Path]:
    """Write every trial's row into one file, and each of ``tables`` (steps, predictions, evaluations) into one file.

    Equal trials give equal files. Failed trials have their rows, too. An RO-Crate describes the files.

    Args:
        folders: where the trials are.
        state: the trials of all of them.

    Raises:
        ArtifactError: a listed trial has no result, and ``incomplete`` is not set; a sweep is writing to the
            folder; ``out`` is not empty or cannot be written; the folder does not hold one of ``tables``.
    """
    state = replace(state, table=checked_contents(state.table))
    folder = ", ".join(map(str, folders))
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
    # Complete or not there: a folder beside it takes its name once all files are in it.
    beside = out.resolve().with_name(f".{out.resolve().name}.{uuid.uuid4().hex}.tmp")
    try:
        beside.mkdir(parents=True)
        for table in tables:
            written.append(_write_whole(folder, state, table, beside))
        if any((each / LOCK_FILE).is_file() for each in folders):
            save_lock(beside, joined_lock(folders))
            written.append(beside / LOCK_FILE)
        rows = state.table.frame.select(list(TRIAL_SCHEMA)).sort(_ORDER)
        write_table(rows, beside / PUBLISHED)
        written.append(write_crate(beside, [beside / PUBLISHED, *written], rows))
        beside.replace(out.resolve())
    except OSError as error:
        raise ArtifactError(f"{out} cannot be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return [out / PUBLISHED, *(out / path.name for path in written)]


def _write_whole(folder: str, state: FolderState, table: str, out: Path) -> Path:
    rows = scan_table([state.table], table)
    if rows is None:
        raise ArtifactError(f"{folder} holds no {table}")
    try:
        frame = (
            rows.select(list(SCHEMAS[table]))
            .sort("run_id", ORDER_IN_TABLE[table])
            .collect(engine="streaming")
        )
    except READ_ERRORS as error:
        raise ArtifactError(f"a file of the {table} in {folder} is damaged: {first_line(error)}") from None
    path = out / f"{table}.parquet"
    write_table(frame, path)
    return path
