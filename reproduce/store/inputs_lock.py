"""``inputs.lock.toml``: what the models and data of an artifact folder are, to the last byte.

It stands beside the artifacts. What identifies an input is its content; revision, file hashes and
row counts say where that came from.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from lfreeze.data.tasks import TaskData
from lfreeze.models.catalog import Checkpoint
from lfreeze.models.files import file_hash
from reproduce.plan.inputs import SpaceInputs
from reproduce.store.artifacts import LOCK_FILE, ArtifactError

_VERSION = 1
# By kind of input: what must agree.
_IDENTITY = {"models": ("weights_hash", "tokenizer_hash"), "tasks": ("content_hash",)}


def check_lock(root: Path, inputs: SpaceInputs) -> None:
    """See that what was found is what the folder's lock says.

    Raises:
        ArtifactError: it is not, or the lock cannot be read.
    """
    locked = _read(root)
    for kind, entries in _entries(inputs).items():
        for name, entry in entries.items():
            old = locked.get(kind, {}).get(name, entry)
            for field in _IDENTITY[kind]:
                if old.get(field) != entry[field]:
                    raise ArtifactError(
                        f"the {kind[:-1]} {name} is not what {root / LOCK_FILE} says: its {field} is "
                        f"{entry[field]:.12} now ({_origin(entry)}), {old.get(field)!s:.12} there "
                        f"({_origin(old)}); name another folder with --artifacts, or take the new one with "
                        "--accept-inputs"
                    )


def write_lock(root: Path, inputs: SpaceInputs) -> None:
    """Write what was found into the folder's lock; other inputs that it lists stay."""
    locked = _read(root)
    for kind, entries in _entries(inputs).items():
        locked[kind] = {**locked.get(kind, {}), **entries}
    temporary = root / f".{LOCK_FILE}.{os.getpid()}.tmp"
    temporary.write_text(tomli_w.dumps({"version": _VERSION, **locked}), "utf-8")
    temporary.replace(root / LOCK_FILE)


def _read(root: Path) -> dict[str, Any]:
    try:
        locked = tomllib.loads((root / LOCK_FILE).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{root / LOCK_FILE} is damaged: {error}") from None
    if locked.pop("version", None) != _VERSION or any(not isinstance(v, dict) for v in locked.values()):
        raise ArtifactError(f"{root / LOCK_FILE} is not a lock of version {_VERSION}")
    return locked


def _entries(inputs: SpaceInputs) -> dict[str, dict[str, dict[str, Any]]]:
    return {
        "models": {name: _model(checkpoint) for name, checkpoint in inputs.checkpoints.items()},
        "tasks": {name: _task(data) for name, data in inputs.data.items()},
    }


def _model(checkpoint: Checkpoint) -> dict[str, Any]:
    return _known(
        model_id=checkpoint.model_id,
        revision=checkpoint.revision,
        weights_hash=checkpoint.weights_hash,
        tokenizer_hash=checkpoint.tokenizer_hash,
        files={path.name: file_hash(path) for path in checkpoint.files},
    )


def _task(data: TaskData) -> dict[str, Any]:
    return _known(
        dataset_id=data.task.dataset_id,
        revision=data.revision,
        n_train=data.n_available,
        n_validation=data.n_validation_available,
        content_hash=data.content_hash,
        files={name: file_hash(path) for name, path in data.files},
    )


def _known(**values: Any) -> dict[str, Any]:
    """TOML has no null."""
    return {name: value for name, value in values.items() if value is not None}


def _origin(entry: Mapping[str, Any]) -> str:
    return f"revision {entry['revision']:.12}" if "revision" in entry else "not from the hub"
