"""The process of a command or a worker: environment variables, imports, signals, exit statuses.

Ctrl-C and ``docker stop`` end a sweep at once; finished trials are kept.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from collections.abc import Iterator
from types import FrameType

# Exit statuses of the ``reproduce`` command.
OK, FAILED, BAD_INPUT = 0, 1, 2
# The end of messages about a sweep that ended early.
CONTINUES = "finished trials are kept, and the same command continues"
# As in a shell, the status after a signal is this plus the signal's number.
SIGNALLED = 128

_ENVIRONMENT = {
    # Read when torch is imported: its profiler otherwise logs each start, stop and allocation.
    "KINETO_LOG_LEVEL": "99",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    # Required by torch's deterministic algorithms on CUDA.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # Tune's own loggers and snapshots cost more than a tiny trial; nothing here reads them.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_MAX_PENDING_TRIALS_PG": "16",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Hides the GPUs from workers that request none.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
# Ray's setting for systems on which it cannot form a cluster. It keeps Ray's services on the loopback
# interface.
_SINGLE_MACHINE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

_received: signal.Signals | None = None


def set_environment(*, single_machine: bool = False) -> None:
    """Set the environment variables of torch, Ray and Tune; values that the user has set are kept.

    Call it before torch or Ray is imported, since some are read at import.

    Args:
        single_machine: whether Ray is about to start on this machine alone, reachable from nowhere else.
    """
    for name, value in (_ENVIRONMENT | (_SINGLE_MACHINE if single_machine else {})).items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def garbage_kept() -> Iterator[None]:
    """Collect no garbage in the block, for imports of torch and transformers: they make none that matters.

    Collections in between take a quarter of the time of these imports.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def end_on_signals() -> None:
    """Raise KeyboardInterrupt at the first SIGINT or SIGTERM; ignore later ones while Ray stops.

    KeyboardInterrupt, because Ray's compiled code lets no other exception through.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise)


def ending_signal(error: BaseException | None) -> signal.Signals | None:
    """The signal that ended a command; None if none did.

    Once a signal has arrived, every error counts as its consequence: Ray's own processes may have received
    the signal too, and calls to them then fail.

    Args:
        error: what the command raised, if anything.
    """
    if _received is not None:
        return _received
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT
    # Ray's reaction to SIGTERM while it starts, when its own handler is installed.
    if isinstance(error, SystemExit) and error.code == signal.SIGTERM:
        return signal.SIGTERM
    return None


def _raise(number: int, frame: FrameType | None) -> None:
    global _received
    _received = signal.Signals(number)
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt
