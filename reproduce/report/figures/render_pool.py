"""Figures drawn by several processes; ``python -m`` this module is one of them."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import polars as pl

from reproduce.report.figures.spec import Draw
from reproduce.report.figures.style import save

Job = tuple[Draw, pl.DataFrame, Path]  # how, what, and the files' path without its ending

_DRAWN = b"drawn\n"


class Drawing:
    """Figures being drawn and written by other processes while this one goes on.

    Processes are started by name, as no fork is safe beside Polars' threads, and as multiprocessing's
    spawn would run a caller's unguarded script again. What one of them could not draw is drawn here.

    Args:
        apart: whether other processes, each a second in starting, shall draw.
    """

    def __init__(self, apart: bool) -> None:
        self._mine = threading.local()  # each thread has one process
        self._processes: list[subprocess.Popen[bytes]] = []
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, initializer=self._start) if apart else None
        self._jobs: list[tuple[Job, Future[bool] | None]] = []

    def add(self, job: Job) -> None:
        """Have one more figure drawn."""
        self._jobs.append((job, self._threads.submit(self._send, job) if self._threads else None))

    def finish(self) -> None:
        """Wait until every figure is written."""
        for job, drawn in self._jobs:
            if drawn is None or not drawn.result():
                _draw(job)
        if self._threads:
            self._threads.shutdown()
        for process in self._processes:
            process.communicate()

    def _start(self) -> None:
        command = [sys.executable, "-m", __name__]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        self._mine.process = process
        self._processes.append(process)

    def _send(self, job: Job) -> bool:
        """Whether the thread's process drew the figure."""
        process = self._mine.process
        draw, data, stem = job
        table = io.BytesIO()
        data.write_ipc(table)
        order = {"module": draw.__module__, "draw": draw.__name__, "stem": str(stem), "bytes": table.tell()}
        # A process that has ended breaks the pipe.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(order).encode() + b"\n" + table.getvalue())
            process.stdin.flush()
        return bool(process.stdout.readline() == _DRAWN)


def _draw(job: Job) -> None:
    draw, data, stem = job
    save(draw(data), stem)


def _serve() -> None:
    """Draw what comes in until nothing more does."""
    # Once a figure, collecting garbage takes a tenth of the time that it takes as it comes.
    gc.disable()
    for line in sys.stdin.buffer:
        order = json.loads(line)
        draw = getattr(importlib.import_module(order["module"]), order["draw"])
        data = pl.read_ipc(io.BytesIO(sys.stdin.buffer.read(order["bytes"])))
        _draw((draw, data, Path(order["stem"])))
        gc.collect()
        sys.stdout.buffer.write(_DRAWN)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve()
