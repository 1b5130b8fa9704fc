"""What a sweep leaves behind: no secrets in Ray's files, and no folders of runs that have ended.

A folder of a running process has a file that the process holds locked; the lock ends with the process, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from reproduce.process import removed_at_once, signals_held

_HELD = ".lfreeze"
_SCRATCH = "lfreeze-"
# Tune copies these into the definition of its workers, which Ray's logs show.
_COPIED = re.compile(r"AWS_.*")
_SECRET = re.compile(r".*(SECRET|PASSWORD|PASSWD|CREDENTIALS?|API_?KEY|ACCESS_?KEY|PRIVATE_KEY|TOKEN)(_.*)?")
# What workers need to read models, and Ray itself to authenticate.
_NEEDED = re.compile(r"(HF|HUGGING_?FACE|RAY)_.*")


@contextlib.contextmanager
def without_copied_credentials() -> Iterator[None]:
    """Hide the credentials from this process that Tune copies; a sweep needs none of them."""
    with _hidden(name for name in os.environ if _COPIED.fullmatch(name)):
        yield


@contextlib.contextmanager
def without_credentials() -> Iterator[None]:
    """Hide credentials from processes that start meanwhile, but the hub's and Ray's own."""
    with _hidden(name for name in os.environ if _SECRET.fullmatch(name) and not _NEEDED.fullmatch(name)):
        yield


@contextlib.contextmanager
def _hidden(names: Iterator[str]) -> Iterator[None]:
    values = {name: os.environ.pop(name) for name in list(names)}
    try:
        yield
    finally:
        os.environ.update(values)


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """Let files that this process and those that it starts create be readable by their user alone."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def make_private(file: Path) -> None:
    """Take others' permissions from a file of this user, if there is one."""
    with contextlib.suppress(OSError):
        if file.stat().st_mode & 0o077:
            file.chmod(0o600)


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder that is removed at the end; those of ended processes are removed at the start."""
    remove_abandoned(Path(tempfile.gettempdir()), f"{_SCRATCH}*")
    folder = Path(tempfile.mkdtemp(prefix=_SCRATCH))
    with held(folder):
        yield folder


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Mark a folder as this process's, and remove it at the end, also at a second signal."""
    remove = partial(shutil.rmtree, folder, ignore_errors=True)
    with removed_at_once(remove), contextlib.ExitStack() as stack:
        stack.callback(_undisturbed, remove)
        # A folder whose disk is full is removed all the same, but not after the process was killed.
        with contextlib.suppress(OSError):
            mark = stack.enter_context((folder / _HELD).open("w"))
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _undisturbed(remove: Callable[[], object]) -> None:
    with signals_held():
        remove()


def remove_abandoned(parent: Path, pattern: str) -> None:
    """Remove the marked folders of processes that have ended."""
    for mark in parent.glob(f"{pattern}/{_HELD}"):
        # Another user's folder, or one that its process is removing.
        with contextlib.suppress(OSError), mark.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(mark.parent, ignore_errors=True)


def remove_dangling(parent: Path) -> None:
    """Remove the links in a folder to what is no longer there, such as Ray's to its latest session."""
    for path in parent.iterdir():
        if path.is_symlink() and not path.exists():
            path.unlink(missing_ok=True)
