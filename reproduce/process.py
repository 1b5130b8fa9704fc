"""Exit statuses and signals: Ctrl-C and ``docker stop`` end a sweep at once; finished trials are kept."""

from __future__ import annotations

import signal
from types import FrameType

# Exit statuses of the ``reproduce`` command.
OK, FAILED, BAD_INPUT = 0, 1, 2
# A signal's number is added to it, as a shell does.
SIGNALLED = 128

_received = signal.SIGINT


def end_on_signals() -> None:
    """Raise KeyboardInterrupt at the first SIGINT or SIGTERM; later ones are ignored while Ray stops.

    It is no exception of its own, since Ray's compiled code lets no other through.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise)


def of_rays_handler(status: object) -> bool:
    """Whether an exit is what Ray makes of a SIGTERM while it starts: its own handler is in place then."""
    global _received
    if status == signal.SIGTERM:
        _received = signal.SIGTERM
    return status == signal.SIGTERM


def received() -> signal.Signals:
    """The signal behind a KeyboardInterrupt."""
    return _received


def _raise(number: int, frame: FrameType | None) -> None:
    global _received
    _received = signal.Signals(number)
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt
