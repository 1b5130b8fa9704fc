"""Commands in processes of their own, with their time and resident memory."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_LAST_LINES = 20


def run_module(
    module: str,
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    watch: Callable[[int], None] | None = None,
    every: float = 0.05,
) -> float:
    """Run ``python -m module`` and wait for its end; the seconds that it took.

    Args:
        watch: called with the process's id every so many seconds while it runs.

    Raises:
        RuntimeError: it ended with another status than 0; the message has its last lines.
    """
    command = [sys.executable, "-m", module, *arguments]
    with tempfile.TemporaryFile("w+") as output:
        started = time.perf_counter()
        with subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=dict(environment)
        ) as process:
            try:
                while watch is not None and process.poll() is None:
                    watch(process.pid)
                    time.sleep(every)
                status = process.wait()
            except BaseException:
                process.terminate()
                raise
        seconds = time.perf_counter() - started
        if status:
            output.seek(0)
            last = "".join(output.readlines()[-_LAST_LINES:])
            raise RuntimeError(f"{module} {' '.join(arguments)} ended with status {status}:\n{last}")
    return seconds


def resident_bytes(pid: int, *, with_children: bool = False) -> int:
    """Bytes of a process in memory, on request with those of all processes that it started; 0 once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8")
        children = (
            Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split() if with_children else []
        )
    except OSError:
        return 0
    lines = [line.split() for line in status.splitlines() if line.startswith("VmRSS:")]
    own = int(lines[0][1]) * 1024 if lines else 0
    return own + sum(resident_bytes(int(child), with_children=True) for child in children)
