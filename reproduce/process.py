"""The process of a command or a worker: environment variables, imports, signals, exit statuses.

Ctrl-C, ``docker stop`` and a closed terminal end a sweep at once; finished trials are kept. The first signal
raises KeyboardInterrupt, so that everything is ended and removed in its order; a second one ends what runs and
removes what is left without waiting.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

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

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# How soon KeyboardInterrupt is raised again where something has swallowed it.
_AGAIN_SECONDS = 0.05

_received: signal.Signals | None = None
_held = 0
_cleanups: list[Callable[[], object]] = []


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
    """Raise KeyboardInterrupt at the first SIGINT, SIGTERM or SIGHUP, and end the process at the second.

    KeyboardInterrupt, because Ray's compiled code lets no other exception through. Call it again after code that
    installs handlers of its own.
    """
    for number in _ENDING:
        # ``nohup`` ignores SIGHUP for the command that it starts.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)
    signal.signal(signal.SIGALRM, _raise_again)
    sys.unraisablehook = _unraisable


def end_at_once_on_signals() -> None:
    """End the process at any signal, for a command that has ended all but itself."""
    for number in _ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, frame: _end_at_once(_received or signal.Signals(number)))


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Let the first signal interrupt nothing in the block, but end it: for what ends and removes things."""
    global _held
    before, _held = _received, _held + 1
    try:
        yield
    finally:
        _held -= 1
    if _received is not None and before is None and not _held:
        raise KeyboardInterrupt


@contextlib.contextmanager
def removed_at_once(cleanup: Callable[[], object]) -> Iterator[None]:
    """Call ``cleanup`` if a second signal ends the process in the block."""
    _cleanups.append(cleanup)
    try:
        yield
    finally:
        _cleanups.remove(cleanup)


def raise_if_ended() -> None:
    """Raise KeyboardInterrupt if a signal has arrived, in case that something swallowed its first one."""
    if _received is not None:
        raise KeyboardInterrupt


def interrupted_sentence(number: signal.Signals) -> str:
    return f"interrupted ({number.name}): {CONTINUES}."


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


def _end(number: int, frame: FrameType | None) -> None:
    global _received
    first, _received = _received is None, _received or signal.Signals(number)
    if not first:
        _end_at_once(_received)
    if not _held:
        raise KeyboardInterrupt


def _end_at_once(number: signal.Signals) -> None:
    for other in _ENDING:
        signal.signal(other, signal.SIG_IGN)
    for cleanup in reversed(_cleanups):
        with contextlib.suppress(Exception):
            cleanup()
    with contextlib.suppress(OSError):
        # A live display hides the cursor.
        cursor = "\x1b[?25h" if os.isatty(2) else ""
        os.write(2, f"{cursor}{interrupted_sentence(number)}\n".encode())
    os._exit(SIGNALLED + number)


def _raise_again(number: int, frame: FrameType | None) -> None:
    if not _held:
        raise KeyboardInterrupt


def _unraisable(unraisable: Any) -> None:
    """KeyboardInterrupt that a ``__del__`` has swallowed is raised again; anything else is shown as always."""
    if _received is not None and unraisable.exc_type is KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
    else:
        sys.__unraisablehook__(unraisable)
