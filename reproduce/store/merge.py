"""Several artifact folders of one recipe as one: read together, or joined in one folder.

A trial that several folders hold counts once: with its success, if there is one, which must then be the same in
all of them to the last bit; otherwise with its latest failure.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from lfreeze.atomic import write_atomically
from reproduce.plan.spec import introduced_values
from reproduce.store.artifacts import ArtifactError, FolderState, read_folder
from reproduce.store.contents import checked_contents
from reproduce.store.grid import Grid, plain
from reproduce.store.inputs_lock import InputLock, read_lock, save_lock
from reproduce.store.manifest import MANIFEST_FILE, Manifest, ManifestTrial, load_json
from reproduce.store.parquet import TrialTable, relative_path
from reproduce.store.schema import BIT_COLUMNS, EVALUATIONS, TABLES


@dataclass(frozen=True)
class _Folder:
    root: Path
    manifest: Manifest
    lock: InputLock
    state: FolderState


@dataclass(frozen=True)
class _Joined:
    """What several folders hold together.

    Attributes:
        chosen: by run id, the folder whose result of the trial counts; trials without any are absent.
    """

    folders: Sequence[_Folder]
    manifest: Manifest
    lock: InputLock
    chosen: dict[str, _Folder]


def joined_state(roots: Sequence[Path]) -> FolderState:
    """The trials and results of one folder, or of several as one.

    Raises:
        ArtifactError: as ``read_folder`` and ``merge``.
    """
    if len(roots) == 1:
        return read_folder(roots[0])
    joined = _join([_read(root) for root in roots])
    states = [folder.state for folder in joined.folders]
    listed = {trial.run_id: trial for state in states for trial in state.listed}
    frames = [
        folder.state.rows.filter(
            pl.col("run_id").is_in([run_id for run_id, owner in joined.chosen.items() if owner is folder])
        )
        for folder in joined.folders
    ]
    entries = {entry.run_id: _path(entry) for entry in joined.manifest.trials}
    files: dict[str, list[Path]] = {table: [] for table in BIT_COLUMNS}
    for name, folder in itertools.product(files, joined.folders):
        held = set(getattr(folder.state.table, name))
        owned = (run_id for run_id, owner in joined.chosen.items() if owner is folder)
        files[name] += [path for run_id in owned if (path := folder.root / name / entries[run_id]) in held]
    damaged = tuple(itertools.chain(*(state.table.damaged for state in states)))
    table = TrialTable(pl.concat(frames), damaged, **{table: tuple(paths) for table, paths in files.items()})
    running = tuple(itertools.chain(*(state.running for state in states)))
    return FolderState(tuple(listed.values()), table, any(state.live for state in states), running)


def joined_lock(roots: Sequence[Path]) -> InputLock:
    """The models and data of folders that agree on those that they share.

    Raises:
        ArtifactError: they do not, or an input lock cannot be read.
    """
    lock = read_lock(roots[0])
    origins = {(part, name): roots[0] for part in ("models", "tasks") for name in getattr(lock, part)}
    for root in roots[1:]:
        other = read_lock(root)
        for part, hashes in (("models", ("weights_hash", "tokenizer_hash")), ("tasks", ("content_hash",))):
            present, added = getattr(lock, part), getattr(other, part)
            for name in sorted(present.keys() & added.keys()):
                for field in hashes:
                    values = [getattr(entries[name], field) for entries in (present, added)]
                    what = f"{field} of the {part[:-1]} {name} in the input lock"
                    _require_same(origins[part, name], root, what, values)
            origins |= {(part, name): root for name in added.keys() - present.keys()}
            present |= added
    return lock


def merge(roots: Sequence[Path], into: Path) -> int:
    """Copy the trials of folders into one that the caller holds for writing; the number of trials copied.

    Nothing is written if the folders contradict each other. Each trial is complete in ``into`` or not there, and it
    lists those that are not: an interrupted merge continues when it is started again. ``roots`` are not changed.

    Raises:
        ArtifactError: a folder is not one of a sweep, a sweep is writing to it, or it has another recipe, other
            inputs or another result of the same trial than another folder; or ``into`` cannot be written.
    """
    sources = [_read(root) for root in roots]
    for source in sources:
        if source.state.live:
            raise ArtifactError(f"a sweep is writing to {source.root}: merge it after the sweep has ended")
    target = [_read(into)] if (into / MANIFEST_FILE).is_file() else []
    joined = _join([*target, *sources])
    copied = [run_id for run_id, owner in joined.chosen.items() if owner not in target]
    entries = {entry.run_id: _path(entry) for entry in joined.manifest.trials}
    try:
        save_lock(into, joined.lock)
        joined.manifest.write(into / MANIFEST_FILE)
        (into / "trials").mkdir(exist_ok=True)
        for run_id in copied:
            _copy(joined.chosen[run_id].root, into, entries[run_id])
    except OSError as error:
        raise ArtifactError(f"{into} cannot be written ({error.strerror or error})") from None
    return len(copied)


def require_apart(roots: Sequence[Path], into: Path) -> None:
    """Check that a merge changes none of its sources.

    Raises:
        ArtifactError: ``into`` is one of them or inside it, or holds something else than an artifact folder.
    """
    for root in roots:
        if into.resolve().is_relative_to(root.resolve()):
            raise ArtifactError(
                f"--into {into} is in {root}, which a merge does not change: name another folder"
            )
    if into.exists() and not (into / MANIFEST_FILE).is_file() and (not into.is_dir() or any(into.iterdir())):
        raise ArtifactError(f"--into {into} is neither an artifact folder nor empty: name another folder")


def _read(root: Path) -> _Folder:
    if root.is_dir() and not (root / MANIFEST_FILE).is_file():
        raise ArtifactError(f"{root} is not a folder of a sweep: it has no file {MANIFEST_FILE}")
    state = read_folder(root)
    state = replace(state, table=checked_contents(state.table))
    for entry in state.table.damaged:
        if entry.newer:
            raise ArtifactError(f"{entry.path} {entry.reason}")
    return _Folder(root, load_json(root / MANIFEST_FILE, Manifest, ArtifactError), read_lock(root), state)


def _join(folders: Sequence[_Folder]) -> _Joined:
    first, *others = folders
    manifest = first.manifest.model_copy(deep=True)
    for other in others:
        _add(manifest, first.root, other)
    lock = joined_lock([folder.root for folder in folders])
    return _Joined(folders, manifest, lock, _chosen(folders))


def _add(manifest: Manifest, root: Path, other: _Folder) -> None:
    """Add the inputs and trials of another folder to a manifest, after a check that they fit it."""
    recipes = [{**introduced_values(), **each.recipe} for each in (manifest, other.manifest)]
    grids = (manifest.grid, other.manifest.grid)
    grid: Grid = {}
    for name in sorted({*recipes[0], *recipes[1], *grids[0], *grids[1]}):
        values = [recipe.get(name) for recipe in recipes]
        if name in grids[0] or name in grids[1]:
            first, second = (
                each.get(name, [plain(value)]) for each, value in zip(grids, values, strict=True)
            )
            grid[name] = [*first, *(value for value in second if value not in first)]
        else:
            _require_same(root, other.root, f"recipe value {name}", values)
    for recipe, each in zip(recipes, (manifest, other.manifest), strict=True):
        for entry in each.trials:
            entry.grid = {name: entry.grid.get(name, recipe.get(name)) for name in grid}
    manifest.grid = grid
    manifest.recipe = {name: value for name, value in manifest.recipe.items() if name not in grid}
    for pair in sorted(manifest.inputs.keys() & other.manifest.inputs.keys()):
        identities = [each.inputs[pair] for each in (manifest, other.manifest)]
        for name in sorted({*identities[0], *identities[1]}):
            _require_same(root, other.root, f"{name} of {pair}", [each.get(name) for each in identities])
    manifest.inputs |= other.manifest.inputs
    known = {entry.run_id for entry in manifest.trials}
    cells = {_cell(entry): entry.run_id for entry in manifest.trials}
    for entry in other.manifest.trials:
        if entry.run_id not in known:
            what = f"run id of {'/'.join(map(str, _path(entry).parts[:-1]))}/seed={entry.seed}"
            _require_same(root, other.root, what, [cells.get(_cell(entry), entry.run_id), entry.run_id])
            manifest.trials.append(entry)


def _chosen(folders: Sequence[_Folder]) -> dict[str, _Folder]:
    """By run id, the folder whose result counts."""
    held: dict[str, list[tuple[_Folder, str, Any]]] = {}
    for folder in folders:
        for run_id, *outcome in folder.state.rows.select("run_id", "status", "finished_at").iter_rows():
            held.setdefault(run_id, []).append((folder, *outcome))
    chosen = {}
    for run_id, results in held.items():
        succeeded = [folder for folder, status, _ in results if status == "ok"]
        chosen[run_id] = succeeded[0] if succeeded else max(results, key=lambda result: result[2])[0]
        for other in succeeded[1:]:
            _require_same_results(succeeded[0], other, run_id)
    return chosen


def _require_same_results(first: _Folder, second: _Folder, run_id: str) -> None:
    """Refuse two results of one trial whose losses or predictions differ in any bit."""
    path = next(_path(entry) for entry in first.manifest.trials if entry.run_id == run_id)
    for table, columns in BIT_COLUMNS.items():
        if not (first.root / table / path).is_file():
            # Not every trial is evaluated during training.
            continue
        one, other = (
            pl.read_parquet(
                folder.root / table / path, columns=list(columns), hive_partitioning=False, glob=False
            )
            for folder in (first, second)
        )
        if not one.equals(other):
            raise ArtifactError(
                f"{first.root} and {second.root} have different {table} of the same trial, {path.with_suffix('')}: "
                "remove it from one of them, or merge other folders"
            )


def _require_same(first: Path, second: Path, what: str, values: Iterable[Any]) -> None:
    one, other = values
    if one != other:
        raise ArtifactError(
            f"{first} and {second} cannot be joined: the {what} is {one!r} in the first, {other!r} in the second"
        )


def _copy(source: Path, target: Path, relative: Path) -> None:
    """Copy a trial's files, its row last; the target's row of an earlier attempt is removed first."""
    (target / TABLES[0] / relative).unlink(missing_ok=True)
    for table in (EVALUATIONS, *reversed(TABLES)):
        path = target / table / relative
        if (source / table / relative).is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            with (source / table / relative).open("rb") as file:
                write_atomically(path, lambda out, file=file: shutil.copyfileobj(file, out))  # type: ignore[misc]


def _cell(entry: ManifestTrial) -> str:
    """The trial without its run id, which depends on the version that wrote it."""
    return entry.model_dump_json(exclude={"run_id"})


def _path(entry: ManifestTrial) -> Path:
    return relative_path(entry.model, entry.task, entry.strategy, entry.seed, entry.run_id)
