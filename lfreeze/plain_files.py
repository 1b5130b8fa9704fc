"""Reading files that other people made: pipes and devices, which never end, and huge files are refused."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_LONGEST_NAME = 255
# Of 4,096 bytes, some are for the files in a folder.
_LONGEST_PATH = 3000


def read_plain(path: Path, most: int) -> bytes:
    """The content of a file of at most ``most`` bytes.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read, is no plain file, or is larger.
    """
    # A pipe that nobody writes to would block even its opening.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is a pipe or a device, not a file")
        if status.st_size > most:
            raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes, more than {most:,}")
        return file.read()


def is_file(path: Path) -> bool:
    """Whether there is a plain file; False also for what can be no path, such as names that are too long."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def local_folder(text: str) -> Path | None:
    """The existing folder that a text names, whose ``~`` may stand for a home; None if there is none."""
    try:
        path = Path(text).expanduser().resolve()
        return path if path.is_dir() else None
    # A user without a home, a loop of links, a name that is too long.
    except (OSError, RuntimeError, ValueError):
        return None


def path_fault(path: Path) -> str:
    """Why no file system can have a path, as a clause; empty if one can."""
    parts = [os.fsencode(part) for part in path.parts]
    if any(len(part) > _LONGEST_NAME for part in parts):
        return f"a part of it is longer than {_LONGEST_NAME} bytes"
    if len(os.fsencode(path)) > _LONGEST_PATH:
        return f"it is longer than {_LONGEST_PATH:,} bytes"
    return ""
