"""An artifact folder: who may write to it, what it is asked to hold, what it holds.

``sweep.json`` lists the trials that were ever asked for, with the one recipe and the inputs that
they share; a folder never mixes two recipes or two versions of a model or task.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from lfreeze.errors import InputError
from reproduce.plan.spec import Factors, TrialSpec
from reproduce.store.parquet import PUBLISHED, TrialTable, read_trials, relative_path
from reproduce.store.schema import TABLES

_MANIFEST = "sweep.json"
_RUNNING = "running.json"
_LOCK = ".lock"
LOCK_FILE = "inputs.lock.toml"
_SUPERSEDED = "superseded"
# A trial in the manifest.
_ENTRY = {"model": str, "task": str, "strategy": str, "seed": int, "run_id": str}


class ArtifactError(InputError):
    """An artifact folder that cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class Wanted:
    """One trial that the folder is asked to hold."""

    factors: Factors
    run_id: str


@dataclass(frozen=True)
class Progress:
    """What an artifact folder holds of what it is asked to hold.

    Attributes:
        live: whether a sweep is writing to the folder at this moment.
        running: trials that the live sweep is training now.
    """

    wanted: tuple[Wanted, ...]
    table: TrialTable
    live: bool
    running: tuple[str, ...]

    @property
    def rows(self) -> pl.DataFrame:
        """The rows of trials that are wanted."""
        return self.table.frame.filter(pl.col("run_id").is_in([w.run_id for w in self.wanted]))

    @property
    def done(self) -> int:
        return self.rows.filter(pl.col("status") == "ok").height

    @property
    def failed(self) -> pl.DataFrame:
        return self.rows.filter(pl.col("status") != "ok")

    @property
    def missing(self) -> list[Wanted]:
        """Trials without a readable row, those that are running included."""
        found = set(self.rows["run_id"])
        return [w for w in self.wanted if w.run_id not in found]


def check_folder(root: Path) -> None:
    """Make the folder, or see that it is a sweep's.

    Raises:
        ArtifactError: it holds something else, or is not writable.
    """
    if (
        root.is_dir()
        and not (root / _MANIFEST).is_file()
        and any(p.name not in (_LOCK, LOCK_FILE) for p in root.iterdir())
    ):
        raise ArtifactError(
            f"{root} is not empty and was not made by a sweep: name another folder with --artifacts"
        )
    _require_writable(root)


def prepare_folder(
    root: Path, specs: Iterable[TrialSpec], recipe: Mapping[str, Any], *, accept_inputs: bool = False
) -> None:
    """Check that the folder fits, and add the trials to its list; the folder must be held for writing.

    Args:
        accept_inputs: where a model or data is another than before, set that one's earlier trials
            aside, in the folder ``superseded``, and go on.

    Raises:
        ArtifactError: it belongs to another recipe, model or data.
    """
    specs = list(specs)
    inputs = {f"{s.factors.model}/{s.factors.task}": s.inputs.identity() for s in specs}
    manifest: dict[str, Any] = {"space": specs[0].space, "recipe": dict(recipe), "inputs": {}, "trials": []}
    if (root / _MANIFEST).is_file():
        manifest = _load_manifest(root)
        _require_same_recipe(root, manifest["recipe"], recipe)
        if accept_inputs:
            _set_aside(root, manifest, inputs)
        _require_same_inputs(root, manifest["inputs"], inputs)
    known = {entry["run_id"] for entry in manifest["trials"]}
    manifest["inputs"] |= inputs
    manifest["trials"] += [{**asdict(s.factors), "run_id": s.run_id} for s in specs if s.run_id not in known]
    (root / "trials").mkdir(exist_ok=True)
    _replace(root / _MANIFEST, manifest)


@contextlib.contextmanager
def writing(root: Path) -> Iterator[None]:
    """Hold the folder for one sweep; the hold ends with the process, however that ends.

    Raises:
        ArtifactError: another sweep holds it.
    """
    with (root / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArtifactError(
                f"another sweep is writing to {root}: wait for it, or name another folder"
            ) from None
        # What a killed sweep had begun to write; no other can be writing now.
        for leftover in root.rglob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        yield


def note_running(root: Path, trials: Iterable[str]) -> None:
    """Tell readers which trials are training now."""
    _replace(root / _RUNNING, {"running": list(trials)})


def read_progress(root: Path) -> Progress:
    """What the folder holds of what it is asked to hold; of published results, all that is there.

    Raises:
        ArtifactError: it is not there, or was not made by a sweep.
    """
    if not root.is_dir():
        raise ArtifactError(f"there is no folder {root}")
    if not (root / _MANIFEST).is_file() and (root / PUBLISHED).is_file():
        table = read_trials([root])
        trials = table.frame.select("model", "task", "strategy", "seed", "run_id").iter_rows()
        return Progress(
            tuple(Wanted(Factors(*values), run_id) for *values, run_id in trials), table, False, ()
        )
    if not (root / _MANIFEST).is_file():
        raise ArtifactError(f"{root} is not an artifact folder: it has no file {_MANIFEST}")
    manifest = _load_manifest(root)
    wanted = []
    for entry in manifest["trials"]:
        factors = Factors(entry["model"], entry["task"], entry["strategy"], entry["seed"])
        wanted.append(Wanted(factors, entry["run_id"]))
    live = _is_locked(root)
    running = _load(root / _RUNNING)["running"] if live and (root / _RUNNING).is_file() else []
    return Progress(tuple(wanted), read_trials([root]), live, tuple(running))


def _require_same_recipe(root: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            raise ArtifactError(
                f"{root} belongs to another recipe: {name} = {old.get(name)!r} there, {new.get(name)!r} now; "
                "name another folder with --artifacts"
            )


def _set_aside(root: Path, manifest: dict[str, Any], inputs: Mapping[str, Any]) -> None:
    """Move the files of trials whose inputs are no longer these, and take them off the list."""
    changed = {pair for pair in inputs if manifest["inputs"].get(pair, inputs[pair]) != inputs[pair]}
    kept = []
    for entry in manifest["trials"]:
        if f"{entry['model']}/{entry['task']}" not in changed:
            kept.append(entry)
            continue
        path = relative_path(**entry)
        for table in TABLES:
            if (root / table / path).is_file():
                target = root / _SUPERSEDED / table / path
                target.parent.mkdir(parents=True, exist_ok=True)
                (root / table / path).replace(target)
    manifest["trials"] = kept
    manifest["inputs"] = {k: v for k, v in manifest["inputs"].items() if k not in changed}
    _replace(root / _MANIFEST, manifest)


def _require_same_inputs(root: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    for pair in sorted(set(old) & set(new)):
        for name in old[pair]:
            if old[pair][name] != new[pair][name]:
                raise ArtifactError(
                    f"{root} holds trials of {pair} with another {name} ({old[pair][name]:.12} there, "
                    f"{new[pair][name]:.12} now): name another folder with --artifacts, or take the new one "
                    "with --accept-inputs"
                )


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


def _load_manifest(root: Path) -> dict[str, Any]:
    manifest = _load(root / _MANIFEST)
    if not isinstance(manifest, dict) or not {"space", "recipe", "inputs", "trials"} <= set(manifest):
        raise ArtifactError(f"{root / _MANIFEST} is damaged: it lacks the sweep's recipe, inputs or trials")
    for entry in manifest["trials"]:
        if not isinstance(entry, dict) or {k: type(v) for k, v in entry.items()} != _ENTRY:
            raise ArtifactError(f"{root / _MANIFEST} is damaged: {entry!r} is not a trial")
    return manifest


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise ArtifactError(f"{path} is damaged: it is not JSON") from None


def _replace(path: Path, content: Any) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=1), "utf-8")
    temporary.replace(path)


def _is_locked(root: Path) -> bool:
    try:
        with (root / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
