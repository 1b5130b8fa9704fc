"""What a sweep did, and the rows of the trials that it left out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from reproduce.plan.spec import TrialSpec
from reproduce.store.parquet import TrialResult, write_trial
from reproduce.store.row_values import failed_row, started_row
from reproduce.store.trial_row import SKIPPED


@dataclass
class SweepOutcome:
    """What a sweep did.

    Attributes:
        problems: faults of the sweep itself, not of its trials.
        unwritable: why a trial's files could not be written, in a sentence; empty if all were.
        repeats: how often a trial was repeated and gave the same numbers.
    """

    done: int = 0
    repeats: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unwritable: str = ""

    def ends_early(self, fail_fast: bool) -> bool:
        """Whether no further trial shall run: its result could not be kept, or one has failed with ``fail_fast``."""
        return bool(self.unwritable or (fail_fast and self.failed))


def write_skipped(root: Path, spec: TrialSpec, reason: str, *, attempts: int) -> None:
    """Write the row of a trial that does not fit the GPUs at hand.

    Args:
        reason: what it needs and what there is.
        attempts: how often it has run.
    """
    now = datetime.now(UTC)
    row = failed_row(started_row(spec, attempts), SKIPPED, "DoesNotFit", reason)
    write_trial(root, TrialResult(replace(row, started_at=now, finished_at=now)))
