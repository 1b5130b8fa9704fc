"""The faults, by name. A fault is added here alone."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.sweep import N_TRIALS, Sweep, read_only, unmounted


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        inject: does it to a running sweep; False if the sweep had ended, or lacked what the fault needs.
        statuses: exit statuses that the sweep may end with; None: any.
        small_disk: whether the artifact folder is a small file system of its own.
        restore: undoes it before the same command runs again.
        damages: whether finished files may be changed, so that their trials run again.
        phase: when it is injected, at a moment drawn at random: while Ray starts, trials train, or the report is
            written.
        inline: whether the sweep runs without Ray, which the fault does not concern.
    """

    name: str
    inject: Callable[[Sweep, random.Random], bool]
    statuses: tuple[int, ...] | None = None
    small_disk: bool = False
    restore: Callable[[Path], object] | None = None
    damages: bool = False
    phase: str = "training"
    inline: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """Options of the sweep: only what the fault concerns takes time."""
        engine = ("--engine", "inline") if self.inline else ()
        return engine if self.phase == "report" else (*engine, "--no-report")


def _kill(name: str) -> Callable[[Sweep, random.Random], bool]:
    return lambda sweep, source: sweep.kill(name)


def _worker(number: int) -> Callable[[Sweep, random.Random], bool]:
    def inject(sweep: Sweep, source: random.Random) -> bool:
        workers = sweep.processes("worker")
        if workers:
            source.choice(workers).send_signal(number)
        return bool(workers)

    return inject


def _signal(*numbers: signal.Signals) -> Callable[[Sweep, random.Random], bool]:
    def inject(sweep: Sweep, source: random.Random) -> bool:
        for number in numbers:
            if sweep.driver.poll() is not None:
                return False
            sweep.driver.send_signal(number)
        return True

    return inject


def _fill(sweep: Sweep, source: random.Random) -> bool:
    """Leave some kilobytes of the disk."""
    left = source.choice([0, 20, 60]) << 10
    free = os.statvfs(sweep.root)
    with (sweep.root / "filler").open("wb") as file:
        file.write(b"x" * max(0, free.f_bavail * free.f_bsize - left))
    return True


def _use_inodes(sweep: Sweep, source: random.Random) -> bool:
    (sweep.root / "fillers").mkdir()
    for number in range(100_000):
        try:
            (sweep.root / "fillers" / str(number)).touch()
        except OSError:
            return True
    return False


def _free(root: Path) -> None:
    (root / "filler").unlink(missing_ok=True)
    shutil.rmtree(root / "fillers", ignore_errors=True)


def _remove(sweep: Sweep, source: random.Random) -> bool:
    for path in sweep.root.iterdir():
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    return True


def _damage(
    change: Callable[[Path, list[Path], random.Random], None],
) -> Callable[[Sweep, random.Random], bool]:
    """A fault of a file of a finished trial."""

    def inject(sweep: Sweep, source: random.Random) -> bool:
        files = [
            path
            for table in ("trials", "steps", "predictions")
            for path in (sweep.root / table).rglob("*.parquet")
        ]
        if len(files) < 6:
            return False
        path = source.choice(sorted(files))
        change(path, sorted(other for other in files if other.parts[-5] == path.parts[-5]), source)
        return True

    return inject


def _tear(path: Path, others: list[Path], source: random.Random) -> None:
    os.truncate(path, source.randrange(path.stat().st_size))


def _flip(path: Path, others: list[Path], source: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(source.choice([1, 8, 64])):
        content[source.randrange(len(content))] ^= 1 << source.randrange(8)
    path.write_bytes(content)


def _swap(path: Path, others: list[Path], source: random.Random) -> None:
    shutil.copy(source.choice([other for other in others if other != path]), path)


INTERRUPTED = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
FAULTS = {
    fault.name: fault
    for fault in (
        Fault("worker killed", _worker(signal.SIGKILL), statuses=(0,)),
        Fault("raylet killed", _kill("raylet")),
        Fault("GCS killed", _kill("gcs")),
        Fault("driver killed", _signal(signal.SIGKILL), statuses=(-signal.SIGKILL,)),
        Fault("all killed", _kill("")),
        *(
            Fault(f"{number.name} in {phase}", _signal(number), statuses=(status,), phase=phase)
            for number, status in INTERRUPTED.items()
            for phase in ("start", "training", "report")
        ),
        Fault("SIGINT twice", _signal(signal.SIGINT, signal.SIGINT), statuses=(130,)),
        Fault("disk full", _fill, statuses=(1,), small_disk=True, restore=_free, inline=True),
        Fault("disk full, with Ray", _fill, statuses=(1,), small_disk=True, restore=_free),
        Fault("inodes gone", _use_inodes, statuses=(1,), small_disk=True, restore=_free, inline=True),
        Fault(
            "read-only", lambda sweep, _: read_only(sweep.root), statuses=(1,), small_disk=True,
            restore=unmounted, inline=True,
        ),
        Fault("folder emptied", _remove, statuses=(1,), damages=True, inline=True),
        Fault("file torn", _damage(_tear), damages=True, inline=True),
        Fault("bits flipped", _damage(_flip), damages=True, inline=True),
        Fault("files swapped", _damage(_swap), damages=True, inline=True),
    )
}  # fmt: skip


def moment(fault: Fault, sweep: Sweep, source: random.Random) -> bool:
    """Wait for a random moment of the fault's phase; False if the sweep has ended by then."""
    if fault.phase == "start":
        ends = sweep.driver, source.uniform(0.5, 8.0)
        return not _ends_within(*ends)
    n = N_TRIALS if fault.phase == "report" else source.randint(1, N_TRIALS - 1)
    if not sweep.wait_for(lambda: len(sweep.finished()) >= n):
        return False
    return not _ends_within(sweep.driver, source.uniform(0.0, 2.0 if fault.phase == "report" else 0.3))


def _ends_within(driver: object, seconds: float) -> bool:
    import subprocess

    assert isinstance(driver, subprocess.Popen)
    try:
        driver.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True
