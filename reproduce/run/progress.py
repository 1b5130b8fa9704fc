"""The display of a running sweep: trials done, failed and running, and the time left."""

from __future__ import annotations

import time
from collections.abc import Collection

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from reproduce.store.trial_row import TrialRow

_PLAIN_SECONDS = 10.0
_BAR = 40


class SweepProgress:
    """A live display on a terminal; elsewhere a plain line every few seconds.

    Args:
        total: the number of trials to run.
        before: the number of trials that were finished already.
        skipped: the number of trials that do not fit the GPUs at hand.
    """

    def __init__(self, total: int, before: int, skipped: int = 0, console: Console | None = None):
        self._console = console or Console(stderr=True)
        self._total, self._before, self._skipped = total, before, skipped
        self._done = self._failed = 0
        self._running: tuple[str, ...] = ()
        self._last = ""
        self._started = self._printed = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> SweepProgress:
        if self._console.is_terminal:
            self._live = Live(self._render(), console=self._console, refresh_per_second=4)
            self._live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.update(self._render())
            self._live.__exit__(None, None, None)
        else:
            self._console.print(self.line(), highlight=False, soft_wrap=True)

    def finished(self, name: str, row: TrialRow) -> None:
        """Count a trial that ended, and report a failure."""
        self._done += row.status == "ok"
        self._failed += row.status != "ok"
        self._last = f"{name}: {outcome(row)}"
        if row.status != "ok":
            self.note(f"failed: {name}: {row.status}")

    def counts(self) -> dict[str, int]:
        """The number of trials of the whole space, by state."""
        return {
            "total": self._before + self._total + self._skipped,
            "done": self._before + self._done,
            "failed": self._failed,
            "skipped": self._skipped,
            "running": len(self._running),
        }

    def note(self, text: str) -> None:
        """Print a line that stays on the screen."""
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)

    def refresh(self, running: Collection[str]) -> None:
        """Show the counts and the names of the running trials."""
        self._running = tuple(running)
        if self._live is not None:
            self._live.update(self._render())
        elif time.monotonic() - self._printed >= _PLAIN_SECONDS:
            self._printed = time.monotonic()
            self._console.print(self.line(), highlight=False, soft_wrap=True)

    def line(self) -> str:
        """The counts in one line."""
        finished = self._done + self._failed
        elapsed = time.monotonic() - self._started
        left = elapsed / finished * (self._total - finished) if finished else None
        parts = [
            f"{self._before + self._done} of {self._before + self._total + self._skipped} trials done",
            f"{self._failed} failed",
            *([f"{self._skipped} skipped"] if self._skipped else []),
            f"{len(self._running)} running",
            f"{clock(elapsed)} elapsed",
            f"about {clock(left)} left" if left is not None else "time left not known yet",
        ]
        return ", ".join(parts)

    def _render(self) -> Table:
        share = (self._done + self._failed) / max(self._total, 1)
        filled = round(share * _BAR)
        grid = Table.grid()
        grid.add_row(Text.assemble(("━" * filled, "green"), ("━" * (_BAR - filled), "dim"), f" {share:.0%}"))
        grid.add_row(self.line())
        for name in self._running[:8]:
            grid.add_row(Text(f"  running  {name}", style="dim"))
        grid.add_row(Text(f"  last     {self._last}", style="dim"))
        return grid


def outcome(row: TrialRow) -> str:
    """A trial's accuracy, or its status if it failed, and its time."""
    accuracy, seconds = row.validation_accuracy, row.total_seconds
    text = f"accuracy {accuracy:.3f}" if accuracy is not None else str(row.status)
    return text + (f" in {seconds:.1f} s" if seconds is not None else "")


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, second = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{second:02}" if hours else f"{minutes}:{second:02}"
