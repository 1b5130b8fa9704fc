"""What a sweep needs of this machine: shared memory for Ray, disk space for the artifacts."""

from __future__ import annotations

import shutil
from pathlib import Path

from lfreeze.errors import InputError

OBJECT_STORE_BYTES = 256 * 2**20
# Ray's object store, with a margin.
SHM_BYTES = OBJECT_STORE_BYTES + 128 * 2**20
# A trial's three files, and the report's share.
TRIAL_BYTES = 200_000
SHM = Path("/dev/shm")


def require_shared_memory(folder: Path = SHM) -> None:
    """Check the free shared memory.

    Raises:
        InputError: it is too small for Ray's object store.
    """
    if not folder.is_dir():
        return
    free = shutil.disk_usage(folder).free
    if free < SHM_BYTES:
        raise InputError(
            f"{folder} has {free / 2**20:.0f} MiB free, but Ray's object store needs {SHM_BYTES / 2**20:.0f}: "
            "start the container with --shm-size=1g"
        )


def require_disk(root: Path, trials: int) -> None:
    """Check the free space on the disk of an artifact folder.

    Raises:
        InputError: it is too small for this many trials.
    """
    free, need = shutil.disk_usage(root).free, trials * TRIAL_BYTES
    if free < need:
        raise InputError(
            f"the disk of {root} has {free / 1e6:.0f} MB free, but {trials} trials need about {need / 1e6:.0f}: "
            "name another folder with --artifacts"
        )
