"""Figures drawn by worker processes while the report is computed."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType

import polars as pl

from lfreeze.errors import first_line
from reproduce.report.figures.spec import Draw
from reproduce.report.figures.style import save
from reproduce.store.parquet import StoreError

Job = tuple[Draw, pl.DataFrame, Path]  # function, its data, the files' path without suffix


class RenderPool:
    """Draws figures and writes their files, in the background where worker processes are used.

    Workers are spawned, since forking is unsafe while Polars' threads run. Use it as a context manager:
    leaving it ends the workers, also after an exception.

    Args:
        parallel: whether to use workers, which take about a second to start; otherwise ``finish`` draws.
    """

    def __init__(self, parallel: bool) -> None:
        self._pool = _new_pool() if parallel else None
        self._jobs: list[tuple[Job, Future[None] | None]] = []

    def __enter__(self) -> RenderPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def add(self, job: Job) -> None:
        """Draw one more figure; ``job``'s function is at the top level of its module."""
        self._jobs.append((job, self._submit(job)))

    def finish(self) -> None:
        """Wait until every figure is written.

        Raises:
            OSError: a file cannot be written.
            StoreError: a figure cannot be drawn, or a worker process ended.
        """
        for job, drawn in self._jobs:
            try:
                if drawn is None:
                    _render(job)
                else:
                    drawn.result()
            except OSError:
                raise
            except BrokenProcessPool:
                raise StoreError(
                    f"figure {job[2].name} cannot be drawn: a drawing process ended unexpectedly, as when "
                    'memory runs out or the calling script lacks `if __name__ == "__main__":`'
                ) from None
            except Exception as error:
                reason = first_line(error, with_type=True)
                raise StoreError(f"figure {job[2].name} cannot be drawn ({reason})") from error

    def _submit(self, job: Job) -> Future[None] | None:
        if self._pool is None:
            return None
        try:
            return self._pool.submit(_render_in_worker, job)
        except BrokenProcessPool as error:
            broken: Future[None] = Future()
            broken.set_exception(error)
            return broken


def _new_pool() -> ProcessPoolExecutor | None:
    """A pool of spawned processes; None where the system has no semaphores, as without /dev/shm."""
    spawn = multiprocessing.get_context("spawn")
    try:
        return ProcessPoolExecutor(_usable_cpus(), mp_context=spawn, initializer=_start_worker)
    except (OSError, ImportError, NotImplementedError):
        return None


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_worker() -> None:
    # Ctrl-C reaches every process of the terminal; the parent alone handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Collecting garbage once per figure takes a tenth of the time of the automatic collections.
    gc.disable()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker if the parent is killed, as idle workers would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _render_in_worker(job: Job) -> None:
    _render(job)
    gc.collect()


def _render(job: Job) -> None:
    draw, data, stem = job
    save(draw(data), stem)
