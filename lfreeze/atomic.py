"""Files that readers see complete or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file under a temporary name in its folder, sync it to disk, then rename it to ``path``.

    An existing file is replaced. If anything fails, ``path`` stays as it was and the temporary file
    is removed.

    Args:
        path: the file to write; its folder must exist.
        write: writes the content into the open binary file that it receives; what it returns is ignored.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            # A crash after the rename must not leave a name without its content.
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            # The system does not name the file of a failed write.
            error.filename = str(path)
        raise
