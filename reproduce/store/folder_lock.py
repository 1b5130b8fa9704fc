"""Who writes to an artifact folder, and what it trains now."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from reproduce.store.manifest import ArtifactError, Running, load_json, write_json

RUNNING = "running.json"
LOCK = ".lock"
# Readers hold the lock for a moment each time that they look whether a sweep is live.
_WAIT_SECONDS, _RETRY_SECONDS = 2.0, 0.01


@contextlib.contextmanager
def exclusive_writer(root: Path) -> Iterator[None]:
    """Hold the folder lock for one sweep; it is released when the process ends, however it ends.

    Raises:
        ArtifactError: another sweep holds it, or it cannot be written.
    """
    path = root / LOCK
    try:
        lock = path.open("w")
    except IsADirectoryError:
        raise ArtifactError(f"{path} is a folder, where a sweep needs a file: remove it") from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written ({error.strerror or error})") from None
    with lock:
        deadline = time.monotonic() + _WAIT_SECONDS
        while not _acquired(lock.fileno()):
            if time.monotonic() > deadline:
                raise ArtifactError(
                    f"another sweep is writing to {root}: wait for it, or name another folder"
                )
            time.sleep(_RETRY_SECONDS)
        # Temporary files of a killed sweep; with the lock held, no process is writing one.
        for leftover in root.rglob(".*.tmp"):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)
        yield


def _acquired(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(root: Path) -> bool:
    """Whether a sweep is writing to the folder at this moment."""
    try:
        with (root / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none, or none that can be read
        return False
    return False


def note_running(root: Path, trials: Iterable[str]) -> None:
    """Record for readers which trials are training now, if it can be recorded."""
    with contextlib.suppress(OSError):
        write_json(root / RUNNING, {"running": list(trials)})


def running_trials(root: Path) -> tuple[str, ...]:
    """The trials that a live sweep has recorded as training; none where the record is damaged."""
    with contextlib.suppress(ArtifactError):
        return tuple(load_json(root / RUNNING, Running, ArtifactError).running)
    return ()
