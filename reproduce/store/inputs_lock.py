"""``inputs.lock.toml``, the input lock: the exact models and data of an artifact folder.

It is in the artifact folder. The hashes of the content identify an input; revision, file hashes and row counts
document its source.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field

from lfreeze.atomic import write_atomically
from lfreeze.data.tasks import TaskData
from lfreeze.errors import first_line
from lfreeze.models.catalog import Checkpoint
from lfreeze.models.files import file_hash
from lfreeze.plain_files import read_plain
from reproduce.plan.inputs import SpaceInputs
from reproduce.plan.toml_text import parse_toml
from reproduce.store.artifacts import LOCK_FILE, ArtifactError
from reproduce.store.manifest import validated

_VERSION: Literal[1] = 1
_REPLACE = "`reproduce run` with --accept-inputs replaces it"
_LARGEST = 64 << 20  # bytes


class _Entry(BaseModel):
    """A model or task; values that a later version added are kept."""

    model_config = ConfigDict(strict=True, extra="allow")

    revision: str | None = None
    files: dict[str, str] = Field(default_factory=dict)

    @property
    def origin(self) -> str:
        return f"revision {self.revision:.12}" if self.revision else "not from the hub"


class LockedModel(_Entry):
    """A model in the input lock."""

    model_id: str
    weights_hash: str
    tokenizer_hash: str


class LockedTask(_Entry):
    """A task's data in the input lock; ``n_train`` and ``n_validation`` count all available examples."""

    dataset_id: str
    content_hash: str
    n_train: int
    n_validation: int


class DamagedLockError(ArtifactError):
    """An input lock that is not what this program writes."""


class InputLock(BaseModel):
    """``inputs.lock.toml``: models and tasks by name."""

    model_config = ConfigDict(strict=True, extra="allow")

    version: Literal[1] = _VERSION
    models: dict[str, LockedModel] = Field(default_factory=dict)
    tasks: dict[str, LockedTask] = Field(default_factory=dict)


def check_lock(root: Path, inputs: SpaceInputs) -> None:
    """Check that models and data are those in the folder's input lock.

    Raises:
        ArtifactError: one of them has changed, or the input lock cannot be read.
    """
    old, new = read_lock(root), _lock_of(inputs)
    for name, model in new.models.items():
        _require_same(root, f"model {name}", old.models.get(name), model, ("weights_hash", "tokenizer_hash"))
    for name, task in new.tasks.items():
        _require_same(root, f"task {name}", old.tasks.get(name), task, ("content_hash",))


def write_lock(root: Path, inputs: SpaceInputs, *, replace_damaged: bool = False) -> None:
    """Write the models and data into the folder's input lock; its other entries stay.

    Args:
        replace_damaged: start anew where the present input lock is damaged.

    Raises:
        ArtifactError: the present input lock cannot be read.
    """
    try:
        lock = read_lock(root)
    except DamagedLockError:
        if not replace_damaged:
            raise
        lock = InputLock()
    new = _lock_of(inputs)
    lock.models |= new.models
    lock.tasks |= new.tasks
    save_lock(root, lock)


def save_lock(root: Path, lock: InputLock) -> None:
    """Write an input lock into a folder."""
    # TOML has no null.
    content = lock.model_dump(exclude_none=True)
    write_atomically(root / LOCK_FILE, lambda file: file.write(tomli_w.dumps(content).encode()))


def read_lock(root: Path) -> InputLock:
    """The input lock of a folder; an empty one if it has none.

    Raises:
        DamagedLockError: it is damaged.
        ArtifactError: it is a folder, cannot be read, or is of another version.
    """
    path = root / LOCK_FILE
    try:
        content = parse_toml(read_plain(path, _LARGEST))
    except FileNotFoundError:
        return InputLock()
    except IsADirectoryError:
        raise ArtifactError(f"{path} is a folder, where the input lock is a file: remove it") from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise DamagedLockError(f"{path} is damaged: {first_line(error)}; {_REPLACE}") from None
    if content.get("version") != _VERSION:
        raise ArtifactError(f"{path} is not an input lock of version {_VERSION}")
    try:
        return validated(path, content, InputLock, ArtifactError)
    except ArtifactError as error:
        raise DamagedLockError(f"{error}; {_REPLACE}") from None


def _require_same(root: Path, what: str, old: _Entry | None, new: _Entry, fields: tuple[str, ...]) -> None:
    for field in fields:
        before, now = getattr(old or new, field), getattr(new, field)
        if before != now:
            raise ArtifactError(
                f"the {what} differs from {root / LOCK_FILE}: its {field} is {now:.12} now ({new.origin}), "
                f"{before:.12} there ({(old or new).origin}); name another folder with --artifacts, or accept the "
                "new one with --accept-inputs"
            )


def _lock_of(inputs: SpaceInputs) -> InputLock:
    return InputLock(
        models={name: _model(checkpoint) for name, checkpoint in inputs.checkpoints.items()},
        tasks={name: _task(inputs.splits(name)) for name in inputs.data},
    )


def _model(checkpoint: Checkpoint) -> LockedModel:
    return LockedModel(
        model_id=checkpoint.model_id,
        revision=checkpoint.revision,
        weights_hash=checkpoint.weights_hash,
        tokenizer_hash=checkpoint.tokenizer_hash,
        files={path.name: file_hash(path) for path in checkpoint.files},
    )


def _task(data: TaskData) -> LockedTask:
    return LockedTask(
        dataset_id=data.task.dataset_id,
        revision=data.revision,
        n_train=data.n_available,
        n_validation=data.n_validation_available,
        content_hash=data.content_hash,
        files={name: file_hash(path) for name, path in data.files},
    )
