"""What the system allows this process: how many processes, how large files, how much memory.

Read from the kernel's own files, and from control groups of version 1 and 2, as containers have them.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
# Capabilities that lift the limit of processes: CAP_SYS_ADMIN and CAP_SYS_RESOURCE.
_UNLIMITED = 1 << 21 | 1 << 24


@dataclass(frozen=True)
class Room:
    """How much of something is left, and what limits it, such as ``ulimit -u 250``.

    Attributes:
        left: processes and threads, or bytes.
    """

    left: int
    limit: str


def process_room() -> Room | None:
    """How many more processes and threads may start; None without a limit."""
    rooms = [
        Room(most - used, f"the control group's limit of {most:,}")
        for most, used in _groups("pids", "pids.max", "pids.current")
    ]
    most = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if most != resource.RLIM_INFINITY and not _lifted():
        rooms.append(Room(most - _threads_of_user(), f"ulimit -u {most}"))
    return min(rooms, key=lambda room: room.left, default=None)


def file_size_limit() -> int | None:
    """The largest file that may be written, in bytes; None without a limit."""
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if most == resource.RLIM_INFINITY else most


def address_space_limit() -> Room | None:
    """The largest address space that a single process may have, in bytes; None without a limit."""
    limits = (("v", resource.RLIMIT_AS), ("d", resource.RLIMIT_DATA))
    rooms = [
        Room(most, f"ulimit -{letter} {most // 1024}")
        for letter, number in limits
        if (most := resource.getrlimit(number)[0]) != resource.RLIM_INFINITY
    ]
    return min(rooms, key=lambda room: room.left, default=None)


def memory_room() -> Room:
    """The memory that is free on this machine, or that a control group leaves, in bytes."""
    values = dict(_pairs(Path("/proc/meminfo")))
    rooms = [
        Room(values["MemAvailable"] * 1024, f"of the machine's {values['MemTotal'] * 1024 / 2**30:.1f} GiB")
    ]
    for names in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        for most, used in _groups("memory", *names):
            rooms.append(Room(most - used, f"of the control group's {most / 2**30:.1f} GiB"))
    return min(rooms, key=lambda room: room.left)


def _lifted() -> bool:
    """Whether the kernel does not apply the limit of processes to this one."""
    return bool(int(dict(_words(Path("/proc/self/status")))["CapEff"], 16) & _UNLIMITED) or os.getuid() == 0


def _threads_of_user() -> int:
    """The threads of all processes of this user."""
    user, total = str(os.getuid()), 0
    for path in Path("/proc").glob("[0-9]*/status"):
        # A process may end meanwhile.
        with contextlib.suppress(OSError):
            status = dict(_words(path))
            total += int(status["Threads"]) if status["Uid"].split()[0] == user else 0
    return total


def _groups(controller: str, most: str, used: str) -> Iterator[tuple[int, int]]:
    """The limit and the use of each control group that this process is in, without those that have no limit."""
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _GROUPS / controller if controllers else _GROUPS
        own = root / path.lstrip("/")
        # A container may see its own group as the root, under another path.
        for group in (own, *own.parents) if own.is_dir() else (root,):
            if not group.is_relative_to(root):
                break
            texts = [next(_lines(group / name), "max") for name in (most, used)]
            if all(map(str.isdecimal, texts)):
                yield int(texts[0]), int(texts[1]) - _reclaimable(group, used)


def _reclaimable(group: Path, used: str) -> int:
    """The cache of files that counts as used and makes room when memory is needed."""
    if not used.startswith("memory"):
        return 0
    values = dict(_words(group / "memory.stat", separator=" "))
    return int(values.get("total_inactive_file", values.get("inactive_file", 0)))


def _pairs(path: Path) -> Iterator[tuple[str, int]]:
    for name, value in _words(path):
        yield name, int(value.split()[0])


def _words(path: Path, separator: str = ":") -> Iterator[tuple[str, str]]:
    for line in _lines(path):
        name, _, value = line.partition(separator)
        yield name, value.strip()


def _lines(path: Path) -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError, PermissionError, NotADirectoryError):
        yield from path.read_text().splitlines()
