"""What a sweep needs of this machine, checked before anything is trained.

Shared memory, short paths and processes for Ray, room on the disk, large files, memory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from lfreeze.errors import InputError
from reproduce.run.limits import address_space_limit, file_size_limit, memory_room, process_room

OBJECT_STORE_BYTES = 256 * 2**20
# Ray's object store, with a margin.
SHM_BYTES = OBJECT_STORE_BYTES + 128 * 2**20
# A trial's three files, and the report's share.
TRIAL_BYTES = 200_000
SHM = Path("/dev/shm")
# The longest path of a Unix socket in bytes, and the longest that Ray adds to its temporary folder.
SOCKET_PATH_BYTES = 107
_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_{pid}/sockets/plasma_store"
# Threads, as a sweep of two workers on two CPUs has them: this process and Ray's services; an idle worker, of which
# Ray starts one for each CPU; and what a worker that trains has more.
_BASE_THREADS, _IDLE_THREADS, _TRAINING_THREADS = 210, 25, 10
# Memory without a trial's own: this process and Ray's services, and a worker with torch and transformers loaded.
_RAY_BYTES, _WORKER_BYTES = 1000 * 2**20, 600 * 2**20
# Address space of a process that trains, and of Ray's; the sweep above takes 2.2 and 3.9 GiB.
_ADDRESS_BYTES, _RAY_ADDRESS_BYTES = 3 * 2**30, 5 * 2**30
# The largest file without Ray: the report, and encoded texts.
_FILE_BYTES = 64 * 2**20
_INLINE = "or use --engine inline"


def machine_checks(
    root: Path, trials: int, *, workers: int | None, trial_bytes: int
) -> dict[str, Callable[[], str]]:
    """By subject, the checks of this machine: each returns what there is, or raises an ``InputError``.

    Args:
        root: the artifact folder, which need not exist.
        trials: how many trials will be written.
        workers: how many trials Ray runs at once; None without Ray.
        trial_bytes: main memory that the largest trial needs beside its libraries.
    """
    checks: dict[str, Callable[[], str]] = {
        "memory": lambda: require_memory(workers, trial_bytes),
        "file size": lambda: require_file_size(with_ray=workers is not None),
        "disk": lambda: require_disk(root, trials),
    }
    if workers is not None:
        checks["processes"] = lambda: require_processes(workers)
        checks["shared memory"] = require_shared_memory
    return checks


def require_shared_memory(folder: Path = SHM) -> str:
    """Check the free shared memory, and return it in words.

    Raises:
        InputError: it is too small for Ray's object store.
    """
    if not folder.is_dir():
        return f"{folder} does not exist: Ray will use a slower folder"
    free = shutil.disk_usage(folder).free
    if free < SHM_BYTES:
        raise InputError(
            f"{folder} has {free / 2**20:.0f} MiB free, but Ray's object store needs {SHM_BYTES / 2**20:.0f}: "
            "start the container with --shm-size=1g"
        )
    return f"{free / 2**30:.2f} GiB free in {folder}"


def require_disk(root: Path, trials: int) -> str:
    """Check the free space on the disk of an artifact folder, and return it in words.

    Raises:
        InputError: it is too small for this many trials.
    """
    there = next(path for path in (root.absolute(), *root.absolute().parents) if os.path.isdir(path))
    free, need = shutil.disk_usage(there).free, trials * TRIAL_BYTES
    if free < need:
        raise InputError(
            f"the disk of {root} has {free / 1e6:.0f} MB free, but {trials} trials need about {need / 1e6:.0f}: "
            "name another folder with --artifacts"
        )
    return f"{root}: {free / 1e9:.1f} GB free, about {need / 1e9:.2f} GB needed"


def require_processes(workers: int) -> str:
    """Check how many processes and threads may start, and return it in words.

    Raises:
        InputError: Ray needs more.
    """
    room = process_room()
    if room is None:
        return "as many as the kernel allows"
    need = _BASE_THREADS + (os.cpu_count() or 1) * _IDLE_THREADS + workers * _TRAINING_THREADS
    if room.left < need:
        raise InputError(
            f"{room.limit} leaves {room.left:,} processes and threads, but Ray with {workers} workers needs about "
            f"{need:,}: raise the limit (ulimit -u, docker's --pids-limit), {_INLINE}"
        )
    return f"{room.left:,} processes and threads may start ({room.limit})"


def require_file_size(*, with_ray: bool) -> str:
    """Check how large a file may be, and return it in words.

    Raises:
        InputError: Ray's object store or the report is larger.
    """
    limit, need = file_size_limit(), SHM_BYTES if with_ray else _FILE_BYTES
    if limit is None:
        return "no limit"
    if limit < need:
        what = "Ray's object store" if with_ray else "the report"
        remedy = f", {_INLINE}" if with_ray and limit >= _FILE_BYTES else ""
        raise InputError(
            f"ulimit -f allows files of {limit / 2**20:.1f} MiB, but {what} needs {need / 2**20:.0f}: raise the "
            f"limit{remedy}"
        )
    return f"files of {limit / 2**20:,.0f} MiB"


def require_memory(workers: int | None, trial_bytes: int) -> str:
    """Check the free main memory and the address space of a process, and return the memory in words.

    Raises:
        InputError: a trial, or this many at once, needs more.
    """
    require_address_space(with_ray=workers is not None)
    room = memory_room()
    each = _WORKER_BYTES + trial_bytes
    need = each if workers is None else _RAY_BYTES + workers * each
    text = f"{room.left / 2**30:.2f} GiB free {room.limit}"
    if room.left < need:
        at_once = "a trial needs" if workers is None else f"Ray and {workers} trials at once need"
        remedy = "use a machine with more, smaller models, --set precision=bf16 or a smaller batch_size"
        if workers and workers > 1 and room.left >= _RAY_BYTES + each:
            remedy = (
                f"run fewer at once with --max-concurrent {int((room.left - _RAY_BYTES) // each)}, {_INLINE}"
            )
        elif workers and room.left >= each:
            remedy = "use --engine inline"
        raise InputError(f"{text}, but {at_once} about {need / 2**30:.1f} GiB: {remedy}")
    return text


def require_address_space(*, with_ray: bool) -> None:
    """Check the address space that each process may have.

    Raises:
        InputError: a process with torch, or one of Ray's, needs more.
    """
    room, need = address_space_limit(), _RAY_ADDRESS_BYTES if with_ray else _ADDRESS_BYTES
    if room is not None and room.left < need:
        remedy = f", {_INLINE}" if with_ray and room.left >= _ADDRESS_BYTES else ""
        raise InputError(
            f"{room.limit} allows each process {room.left / 2**30:.1f} GiB of address space, but "
            f"{'Ray' if with_ray else 'torch'} reserves about {need / 2**30:.0f}: raise the limit{remedy}"
        )


def temporary_folder() -> Path:
    """The folder below which Ray keeps its sessions."""
    return Path(os.environ.get("RAY_TMPDIR", os.environ.get("TMPDIR", "/tmp")))


def require_short_paths() -> None:
    """Check that Ray's sockets have paths that the system allows, below the temporary folder.

    Raises:
        InputError: the folder's path is too long.
    """
    folder = temporary_folder()
    longest = SOCKET_PATH_BYTES - len(_SOCKET.format(pid=os.getpid()))
    length = len(os.fsencode(folder))
    if length > longest:
        raise InputError(
            f"the temporary folder {folder} has a path of {length} bytes, but Ray's sockets need one of at most "
            f"{longest}: set RAY_TMPDIR=/tmp or another short folder, {_INLINE}"
        )
