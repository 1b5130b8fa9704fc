"""A small real sweep as a process of its own, with everything that it starts and leaves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from tests.support.program import CODE

GRID = ("--tasks", "tiny-cb", "--strategies", "ALL,LoRA,BOT50,ADT-L50", "--seeds", "42,43,44")
N_TRIALS = 12
_SIZES = ("steps=20", "batch_size=4", "probe_steps=3", "max_train_examples=40", "max_validation_examples=40")
_ARGUMENTS = (*GRID, *(word for value in _SIZES for word in ("--set", value)))
_MARK = "LFREEZE_FAULT_RUN"
# Command lines of the processes of a sweep, by name.
PROCESSES = {"worker": "ray::WarmTrial", "raylet": "/raylet/raylet", "gcs": "gcs_server"}
_MOST_SECONDS = 400.0
# The output, and Ray's folder of sessions, which are looked into.
_KEPT = ("output", "ray")


class Sweep:
    """``reproduce run`` of the same small space, in a scratch folder that holds all that it writes.

    Args:
        root: the artifact folder.
        scratch: its temporary folder; the path is short, since Ray's sockets lie in it.
        options: further options of the command.
    """

    def __init__(self, root: Path, scratch: Path, options: Sequence[str] = ()):
        self.root, self.scratch = root, scratch
        self.output = ""
        self._log = scratch / "output"
        self._mark = uuid.uuid4().hex
        self._shared_memory = set(os.listdir("/dev/shm"))
        environment = os.environ | {
            _MARK: self._mark, "TMPDIR": str(scratch), "RAY_TMPDIR": str(scratch), "PYTHONPATH": str(CODE),
            "LFREEZE_CACHE": str(scratch.parent / "cache"), "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
        command = [sys.executable, "-m", "reproduce", "run", *_ARGUMENTS, *options, "--artifacts", str(root)]
        with self._log.open("w") as log:
            self.driver = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )

    def wait_for(self, happened: Callable[[], bool]) -> bool:
        """Wait until something has happened; False if the sweep ends before."""
        deadline = time.monotonic() + _MOST_SECONDS
        while not happened():
            if self.driver.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def finished(self) -> list[Path]:
        """The rows of finished trials."""
        return sorted((self.root / "trials").rglob("*.parquet"))

    def processes(self, name: str = "") -> list[psutil.Process]:
        """The processes that the sweep has started, the driver included, or those of one name."""
        found = []
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
                if process.environ().get(_MARK) == self._mark and PROCESSES.get(name, name) in line:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    def kill(self, name: str, number: int = signal.SIGKILL) -> bool:
        """Send a signal to the processes of one name, all by default; whether there was one."""
        processes = self.processes(name)
        for process in processes:
            process.send_signal(number)
        return bool(processes)

    def end(self) -> int | None:
        """The exit status, once the sweep has ended; None if it had to be killed."""
        try:
            status = self.driver.wait(_MOST_SECONDS)
        except subprocess.TimeoutExpired:
            status = None
        self.output = self._log.read_text("utf-8", "replace")
        if status is None:
            self.kill("")
            self.driver.wait()
        return status

    def leftovers(self, seconds: float = 15.0) -> list[str]:
        """Processes, shared memory and temporary files that are there after a while."""
        deadline = time.monotonic() + seconds
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return left

    def _left(self) -> list[str]:
        processes = [" ".join(process.cmdline())[:60] for process in self.processes()]
        memory = sorted(
            name for name in {*os.listdir("/dev/shm")} - self._shared_memory if not _is_others(name)
        )
        sessions = (path for path in (self.scratch / "ray").glob("session_*") if not path.is_symlink())
        files = [
            path.name
            for path in (*self.scratch.iterdir(), *sessions)
            if path.name not in _KEPT and not path.name.startswith("torchinductor_")
        ]
        return processes + memory + files


def _is_others(name: str) -> bool:
    """Whether a name in shared memory is of another program here: these sweeps draw in no other processes."""
    return name.startswith("sem.mp-")


def run(root: Path, scratch_parent: Path, options: Sequence[str] = ()) -> Sweep:
    """Start a sweep with a scratch folder of its own in ``scratch_parent``."""
    return Sweep(root, Path(tempfile.mkdtemp(prefix="s", dir=scratch_parent)), options)


def clear(sweep: Sweep) -> None:
    """End what is left of a sweep, and remove its scratch folder."""
    sweep.kill("")
    shutil.rmtree(sweep.scratch, ignore_errors=True)


def mounted(folder: Path, options: str) -> bool:
    """Mount a file system in memory; False where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    return _call(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)])


def read_only(folder: Path) -> bool:
    """Lay a read-only view of a folder over it; with a file open for writing, it cannot become so itself."""
    commands = (["--bind", str(folder), str(folder)], ["-o", "remount,bind,ro", str(folder)])
    return all(_call(["mount", *words]) for words in commands)


def unmounted(folder: Path) -> bool:
    return _call(["umount", "-l", str(folder)])


def _call(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
