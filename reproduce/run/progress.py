"""The display of a running sweep: trials done, failed and running, and the time left."""

from __future__ import annotations

import statistics
import time
from collections.abc import Collection

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lfreeze.streams import visible
from reproduce.store.trial_row import TrialRow

_PLAIN_SECONDS = 10.0
_BAR = 40


class Pace:
    """The time that a sweep still needs, from the times of its finished trials.

    The time since the start tells less: it counts the start of Ray and of the workers for every trial, and at first
    the others that run beside the first trial not at all.
    """

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._workers = 1

    def add(self, row: TrialRow) -> None:
        """Count a trial that ended."""
        if row.total_seconds is not None:
            # The first trial of a worker loads the model, which later ones find there.
            extra = (row.gap_seconds or 0.0) if row.worker_trial_index else -(row.setup_seconds or 0.0)
            self._seconds.append(row.total_seconds + extra)

    def see(self, running: int) -> None:
        """Note how many trials run at this moment; the most so far are taken for the number of workers."""
        self._workers = max(self._workers, running)

    def seconds_left(self, unfinished: int, running: int) -> float | None:
        """The seconds until ``unfinished`` trials are done, of which some run and count half; None without a time."""
        if not self._seconds:
            return None
        return (unfinished - running / 2) * statistics.fmean(self._seconds) / self._workers


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
        self._pace = Pace()
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
            self._print(self.line())

    def finished(self, name: str, row: TrialRow) -> None:
        """Count a trial that ended, and report a failure."""
        self._done += row.status == "ok"
        self._failed += row.status != "ok"
        self._pace.add(row)
        self._last = visible(f"{name}: {outcome(row)}")
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
        self._print(text)

    def refresh(self, running: Collection[str]) -> None:
        """Show the counts and the names of the running trials."""
        self._running = tuple(map(visible, running))
        self._pace.see(len(self._running))
        if self._live is not None:
            self._live.update(self._render())
        elif time.monotonic() - self._printed >= _PLAIN_SECONDS:
            self._printed = time.monotonic()
            self._print(self.line())

    def seconds_left(self) -> float | None:
        """The time that the trials without a result still need; None before the first has ended."""
        return self._pace.seconds_left(self._total - self._done - self._failed, len(self._running))

    def line(self) -> str:
        """The counts in one line."""
        elapsed = time.monotonic() - self._started
        left = self.seconds_left()
        parts = [
            f"{self._before + self._done} of {self._before + self._total + self._skipped} trials done",
            f"{self._failed} failed",
            *([f"{self._skipped} skipped"] if self._skipped else []),
            f"{len(self._running)} running",
            f"{clock(elapsed)} elapsed",
            f"about {clock(left)} left" if left is not None else "time left not known yet",
        ]
        return ", ".join(parts)

    def _print(self, text: str) -> None:
        # On a terminal wrapped at words.
        self._console.print(
            visible(text), highlight=False, markup=False, soft_wrap=not self._console.is_terminal
        )

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
