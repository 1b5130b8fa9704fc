"""A trial that is repeated during a sweep, whose numbers must not move.

A machine that begins to compute wrong results raises no error. Every N finished trials the first one runs again, with
the same workers; its losses, gradient norms and logits must be the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reproduce.store.parquet import TrialResult
from reproduce.store.schema import BIT_COLUMNS
from reproduce.store.trial_row import TRIAL_COLUMNS, TrialRow

_RESULTS = tuple(column.name for column in TRIAL_COLUMNS.values() if column.verify == "result")
# Other hardware computes other last digits.
_HARDWARE = tuple(column.name for column in TRIAL_COLUMNS.values() if column.verify == "hardware")
_WORDS = {"steps": "losses or gradient norms", "predictions": "logits", "evaluations": "evaluations"}


class Canary:
    """Counts the finished trials of a sweep, says when the first of them runs again, and compares.

    Args:
        every: the number of finished trials between two repeats.

    Attributes:
        problem: a sentence once a repeat was not the same; None before.
        repeats: the number of repeats that were the same.
    """

    def __init__(self, every: int):
        self._every = every
        self._first: TrialResult | None = None
        self._finished = 0
        self._due = False
        self.problem: str | None = None
        self.repeats = 0

    def take_due(self) -> str | None:
        """The run id of the trial that must run again now; None if none must."""
        due, self._due = self._due, False
        return self._first.row.run_id if due and self._first is not None else None

    def is_repeat(self, result: TrialResult) -> bool:
        """Whether this is a repeat of the first trial, whose files must not be written again."""
        return self._first is not None and result.row.run_id == self._first.row.run_id

    def finished(self, name: str, result: TrialResult) -> None:
        """Count a trial, or compare a repeat with the first run.

        Args:
            name: the trial's name in the sentence.
        """
        if self.is_repeat(result):
            self._compare(name, result)
        elif result.row.status == "ok":
            if self._first is None and _repeatable(result.row):
                self._first = result
            self._finished += 1
            self._due = self._first is not None and self._finished % self._every == 0

    def _compare(self, name: str, again: TrialResult) -> None:
        first = self._first
        assert first is not None
        row = again.row
        if row.status != "ok":
            moved = [f"ended as {row.status} ({row.error_type}: {row.error_message})"]
        elif not _same(first.row, row, _HARDWARE) or not _repeatable(row):
            return
        else:
            moved = [] if _same(first.row, row, _RESULTS) else ["has another accuracy or other frozen layers"]
            for table, columns in BIT_COLUMNS.items():
                before, now = getattr(first, table), getattr(again, table)
                if any(not _equal(before.get(name, ()), now.get(name, ())) for name in columns):
                    moved.append(f"has other {_WORDS[table]}")
        if moved:
            self.problem = (
                f"the repeated trial {name} {' and '.join(moved)} after {self._finished:,} trials: this machine no "
                "longer computes what it did, so trials since the last repeat may be wrong"
            )
        else:
            self.repeats += 1


def _repeatable(row: TrialRow) -> bool:
    return bool(row.deterministic_algorithms)


def _same(first: TrialRow, again: TrialRow, columns: Sequence[str]) -> bool:
    before, now = first.columns(), again.columns()
    return all(before[name] == now[name] for name in columns)


def _equal(before: Sequence[Any], now: Sequence[Any]) -> bool:
    # As text, a value that is no number equals itself.
    return repr(list(before)) == repr(list(now))
