"""An artifact folder: who may write to it, which trials it lists, which results it holds.

``sweep.json``, the manifest, lists every trial that a run of the folder included, with the recipe and the inputs
that they share and their values of a declared grid; a folder never mixes other recipes or two versions of a model
or task.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from reproduce.plan.spec import Factors, TrialSpec
from reproduce.store.folder_lock import LOCK, RUNNING, is_locked, running_trials
from reproduce.store.grid import grid_names, grid_of, grid_points, joined_grid
from reproduce.store.manifest import MANIFEST_FILE as _MANIFEST
from reproduce.store.manifest import ArtifactError as ArtifactError
from reproduce.store.manifest import Manifest, ManifestTrial, inputs_key, load_json
from reproduce.store.parquet import PUBLISHED, Damaged, TrialTable, read_trials, relative_path, row_status
from reproduce.store.schema import EVALUATIONS, TABLES
from reproduce.store.trial_row import SKIPPED

LOCK_FILE = "inputs.lock.toml"
_SUPERSEDED = "superseded"


# What a sweep that could not even list its trials may leave.
_BEGUN = {_MANIFEST, LOCK, LOCK_FILE, RUNNING, *TABLES, _SUPERSEDED}


@dataclass(frozen=True)
class ListedTrial:
    """A trial that the folder lists, with or without a result."""

    factors: Factors
    run_id: str


@dataclass(frozen=True)
class FolderState:
    """The trials that an artifact folder lists, and the results that it holds.

    Attributes:
        live: whether a sweep is writing to the folder at this moment.
        running: the trials that the live sweep is training now.
    """

    listed: tuple[ListedTrial, ...]
    table: TrialTable
    live: bool
    running: tuple[str, ...]

    @property
    def rows(self) -> pl.DataFrame:
        """The rows of the listed trials."""
        return self.table.frame.filter(pl.col("run_id").is_in([trial.run_id for trial in self.listed]))

    @property
    def done(self) -> int:
        return self.rows.filter(pl.col("status") == "ok").height

    @property
    def failed(self) -> pl.DataFrame:
        """The rows of the listed trials that ran without success."""
        return self.rows.filter(~pl.col("status").is_in(["ok", SKIPPED]))

    @property
    def skipped(self) -> pl.DataFrame:
        """The rows of the listed trials that did not run, since they do not fit the GPUs."""
        return self.rows.filter(pl.col("status") == SKIPPED)

    @property
    def missing(self) -> list[ListedTrial]:
        """The listed trials without a readable row, running ones included."""
        present = set(self.rows["run_id"])
        return [trial for trial in self.listed if trial.run_id not in present]

    def has_result(self, spec: TrialSpec) -> bool:
        """Whether the trial has succeeded, under the id of any schema version.

        Raises:
            ArtifactError: a later version of this program wrote the trial's row.
        """
        for run_id in spec.all_run_ids:
            if run_id in self._newer:
                entry = self._newer[run_id]
                raise ArtifactError(f"{entry.path} {entry.reason}")
        return any(self._attempts.get(run_id, ("", 0))[0] == "ok" for run_id in spec.all_run_ids)

    def attempts(self, spec: TrialSpec) -> int:
        """How many times the trial has run, under the id of any schema version."""
        return max(self._attempts.get(run_id, ("", 0))[1] for run_id in spec.all_run_ids)

    @cached_property
    def _attempts(self) -> dict[str, tuple[str, int]]:
        rows = self.table.frame.select("run_id", "status", "attempt").iter_rows()
        return {run_id: (status, attempt) for run_id, status, attempt in rows}

    @cached_property
    def _newer(self) -> dict[str, Damaged]:
        """By run id, the rows that a later version of this program wrote."""
        return {entry.path.stem.rsplit("-", 1)[-1]: entry for entry in self.table.damaged if entry.newer}


def check_folder(root: Path) -> None:
    """Create the folder, or check that it is an artifact folder.

    Raises:
        ArtifactError: it holds something else, or is not writable.
    """
    if root.is_dir() and not (root / _MANIFEST).is_file() and not _is_begun(root):
        raise ArtifactError(
            f"{root} is not empty and was not made by a sweep: name another folder with --artifacts"
        )
    _require_writable(root)


def _is_begun(root: Path) -> bool:
    """Whether a folder without a manifest holds nothing but what a sweep writes."""
    own = _BEGUN | ({"report"} if (root / "trials").is_dir() else set())
    files = [path for path in (root / "trials").rglob("*") if not path.is_dir()]
    return all(_is_temporary(path) or path.name in own for path in root.iterdir()) and all(
        _is_temporary(path) or path.suffix == ".parquet" for path in files
    )


def _is_temporary(path: Path) -> bool:
    return path.name.startswith(".") and path.suffix == ".tmp"


def prepare_folder(
    root: Path, specs: Iterable[TrialSpec], recipe: Mapping[str, Any], *, accept_inputs: bool = False
) -> None:
    """Check that the folder fits the trials and list them; the caller holds the folder for writing.

    A trial that has succeeded under the id of an earlier schema version keeps it. Without a result it is listed
    under its present id, and the earlier files are moved to the folder ``superseded``.

    Args:
        accept_inputs: where a model or data has changed, move its earlier trials to the folder ``superseded``
            and continue.

    Raises:
        ArtifactError: the folder belongs to another recipe, model or data, or its manifest is damaged.
    """
    specs = list(specs)
    is_new = not (root / _MANIFEST).is_file()
    manifest = (
        Manifest(space=specs[0].space, recipe={}, inputs={}, trials=[]) if is_new else _load_manifest(root)
    )
    grid = grid_of(specs)
    if not is_new:
        grid = joined_grid(root, (manifest.recipe, manifest.grid), (recipe, grid), ArtifactError)
        for entry in manifest.trials:
            # A value that has become one of a grid.
            entry.grid = {name: entry.grid.get(name, manifest.recipe.get(name)) for name in grid}
    manifest.recipe, manifest.grid = {k: v for k, v in recipe.items() if k not in grid}, grid
    listed = [(ManifestTrial.of(spec, grid), spec) for spec in specs]
    inputs = {inputs_key(entry, manifest.recipe): spec.inputs.identity() for entry, spec in listed}
    if accept_inputs and not is_new:
        _set_changed_aside(root, manifest, inputs)
    _require_same_inputs(root, manifest.inputs, inputs)
    manifest.inputs |= inputs
    _list_trials(root, manifest, listed)
    # Before anything that would make the folder look like one of results.
    manifest.write(root / _MANIFEST)
    (root / "trials").mkdir(exist_ok=True)


def read_folder(root: Path) -> FolderState:
    """The trials that the folder lists and their results; a folder of published results lists all of them.

    Raises:
        ArtifactError: the folder does not exist, is not an artifact folder, or its manifest is damaged.
    """
    if not root.is_dir():
        raise ArtifactError(f"there is no folder {root}")
    if not (root / _MANIFEST).is_file() and (root / PUBLISHED).is_file():
        table = read_trials([root])
        rows = table.frame.select("model", "task", "strategy", "seed", "run_id").iter_rows()
        points = grid_points(table.frame, grid_names(table.frame))
        listed = tuple(
            ListedTrial(Factors(model, task, strategy, seed, point), run_id)
            for (model, task, strategy, seed, run_id), point in zip(rows, points, strict=True)
        )
        return FolderState(listed, table, False, ())
    if not (root / _MANIFEST).is_file():
        lost = "; `reproduce run` of its space rebuilds it" if (root / "trials").is_dir() else ""
        raise ArtifactError(f"{root} is not an artifact folder: it has no file {_MANIFEST}{lost}")
    manifest = _load_manifest(root)
    listed = tuple(ListedTrial(entry.factors, entry.run_id) for entry in manifest.trials)
    live = is_locked(root)
    running = running_trials(root) if live else ()
    # A sweep that ended before it wrote anything has no folder of trials yet.
    holds_any = (root / "trials").is_dir() or (root / PUBLISHED).is_file()
    return FolderState(listed, read_trials([root] if holds_any else []), live, running)


def _require_same_inputs(root: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    for pair in sorted(set(old) & set(new)):
        # An identity omits values that change no number: a value that only one of the two has is a difference.
        for name in old[pair] | new[pair]:
            before, now = (_shown(side[pair].get(name)) for side in (old, new))
            if before != now:
                raise ArtifactError(
                    f"{root} holds trials of {pair} with another {name} ({before} there, {now} now): name "
                    "another folder with --artifacts, or accept the new one with --accept-inputs"
                )


def _shown(value: str | None) -> str:
    return "none" if value is None else f"{value:.12}" if value.isalnum() else repr(value)


def _list_trials(root: Path, manifest: Manifest, listed: Iterable[tuple[ManifestTrial, TrialSpec]]) -> None:
    entries = {entry.run_id: entry for entry in manifest.trials}
    for new, spec in listed:
        entry = next((entries[run_id] for run_id in spec.all_run_ids if run_id in entries), None)
        if entry is None:
            manifest.trials.append(new)
        elif entry.run_id != spec.run_id and row_status(root, _path(entry)) != "ok":
            _move_aside(root, entry)
            entry.run_id = spec.run_id


def _set_changed_aside(root: Path, manifest: Manifest, inputs: Mapping[str, Any]) -> None:
    """Move the files of trials whose inputs have changed aside, and remove the trials from the manifest."""
    changed = {pair for pair in inputs if manifest.inputs.get(pair, inputs[pair]) != inputs[pair]}
    kept = []
    for entry in manifest.trials:
        if inputs_key(entry, manifest.recipe) in changed:
            _move_aside(root, entry)
        else:
            kept.append(entry)
    manifest.trials = kept
    manifest.inputs = {pair: values for pair, values in manifest.inputs.items() if pair not in changed}
    manifest.write(root / _MANIFEST)


def _move_aside(root: Path, entry: ManifestTrial) -> None:
    for table in (*TABLES, EVALUATIONS):
        if (root / table / _path(entry)).is_file():
            target = root / _SUPERSEDED / table / _path(entry)
            target.parent.mkdir(parents=True, exist_ok=True)
            (root / table / _path(entry)).replace(target)


def _path(entry: ManifestTrial) -> Path:
    return relative_path(entry.model, entry.task, entry.strategy, entry.seed, entry.run_id)


def _require_writable(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise ArtifactError(
            f"the artifact folder {root} is not writable ({error.strerror}): name another "
            "with --artifacts, or in a container mount one at /artifacts"
        ) from None


def _load_manifest(root: Path) -> Manifest:
    return load_json(root / _MANIFEST, Manifest, ArtifactError)
