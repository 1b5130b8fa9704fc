"""The time that a sweep still needs, against the recorded times of real sweeps."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from reproduce.run.progress import SweepProgress
from reproduce.store.artifacts import read_folder
from reproduce.store.trial_row import TrialRow

ROOT = Path(__file__).parents[3]


def replayed(folder: Path) -> list[float]:
    """After each trial but the last, in the order in which they ended, the time left as estimated, over the true one.

    From start to end of a recorded sweep of two workers.
    """
    frame = read_folder(folder).table.frame.sort("finished_at").drop("artifacts", strict=False)
    rows = [TrialRow.from_columns(values) for values in frame.to_dicts()]
    progress, ratios = SweepProgress(len(rows), before=0, console=Console(quiet=True)), []
    assert progress.seconds_left() is None
    for row in rows[:-1]:
        now = row.finished_at
        assert now is not None
        times = [(other.run_id, other.started_at, other.finished_at) for other in rows]
        progress.refresh([name for name, start, end in times if start and end and start < now <= end])
        progress.finished("", row)
        progress.refresh([name for name, start, end in times if start and end and start <= now < end])
        left = progress.seconds_left()
        assert left is not None
        assert rows[-1].finished_at is not None
        ratios.append(left / (rows[-1].finished_at - now).total_seconds())
    return ratios


@pytest.mark.parametrize("folder", ["artifacts/reference/embedded", "tests/data/schema-2"])
def test_the_first_estimates_are_near_the_truth(folder: str) -> None:
    ratios = replayed(ROOT / folder)
    # Elapsed time over the number of finished trials would start with 2.0 and 3.5 times the truth.
    for after in (0, 1, 2, 4, len(ratios) // 4, len(ratios) // 2):
        assert 0.5 < ratios[after] < 1.8, after
    assert 0.8 < ratios[0] < 1.3
