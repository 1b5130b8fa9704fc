"""Room that a sweep needs on this machine: shared memory for Ray, disk for the artifacts."""

from __future__ import annotations

import shutil
from pathlib import Path

from lfreeze.errors import InputError

OBJECT_STORE_BYTES = 256 * 2**20
# Ray's object store, with some room.
SHM_BYTES = OBJECT_STORE_BYTES + 128 * 2**20
# A trial's three files, and the report's share.
TRIAL_BYTES = 200_000
SHM = Path("/dev/shm")


def require_shared_memory(folder: Path = SHM) -> None:
    """
    Raises:
        InputError: there is too little for Ray's object store.
    """
    if not folder.is_dir():
        return
    free = shutil.disk_usage(folder).free
    if free < SHM_BYTES:
        raise InputError(
            f"{folder} has {free / 2**20:.0f} MiB free, Ray's object store needs {SHM_BYTES / 2**20:.0f}: "
            "start the container with --shm-size=1g"
        )


def require_disk(root: Path, trials: int) -> None:
    """
    Raises:
        InputError: the disk of an artifact folder is too full for this many trials more.
    """
    free, need = shutil.disk_usage(root).free, trials * TRIAL_BYTES
    if free < need:
        raise InputError(
            f"the disk of {root} has {free / 1e6:.0f} MB free, {trials} trials need about {need / 1e6:.0f}: "
            "name another folder with --artifacts"
        )
