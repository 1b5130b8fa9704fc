"""What every engine does with a sweep's trials: run one by its id, write those that end, count and show them."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from errno import ENOENT
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lfreeze.data.tasks import TaskData
from lfreeze.errors import first_line
from lfreeze.models.catalog import ModelCard, find_checkpoint
from reproduce.plan.spec import TrialSpec
from reproduce.process import CONTINUES
from reproduce.run.canary import Canary
from reproduce.run.outcome import SweepOutcome
from reproduce.run.progress import SweepProgress
from reproduce.store.folder_lock import note_running
from reproduce.store.manifest import MANIFEST_FILE
from reproduce.store.parquet import TrialResult, write_trial

if TYPE_CHECKING:
    # Importing this module imports no torch, so that a worker sets its environment first.
    from lfreeze.training.record import Step
    from reproduce.run.worker import Placement, TrialWorker

TrialLogger = Callable[[TrialSpec, TrialResult], None]


@dataclass(frozen=True)
class SweepOptions:
    """What every engine is told of a sweep.

    Attributes:
        attempts: by run id, the number of this attempt, from 1.
        finished_before: trials of the space that are finished already, for the display.
        skipped: trials of the space that do not fit the GPUs, for the display.
        fail_fast: whether the first failed trial ends the sweep.
        loggers: called with each trial that succeeded.
        canary: after this many finished trials of a class, its first one runs again; the sweep ends if its numbers
            have changed. None for no repeats.
    """

    attempts: Mapping[str, int]
    finished_before: int = 0
    skipped: int = 0
    fail_fast: bool = False
    loggers: Sequence[TrialLogger] = ()
    canary: int | None = None


@dataclass(frozen=True)
class SweepInputs:
    """What every worker needs; on Ray, sent once through its object store.

    Attributes:
        specs: the trials, by run id.
        attempts: by run id, the number of this attempt, from 1.
        cards: the models of the space, by name.
        data: its tasks' data, by name and by ``Factors.data_key``.
    """

    specs: Mapping[str, TrialSpec]
    attempts: Mapping[str, int]
    cards: Mapping[str, ModelCard]
    data: Mapping[str, Mapping[Any, TaskData]]

    def run(
        self, worker: TrialWorker, run_id: str, placement: Placement, on_step: Callable[[Step], None]
    ) -> TrialResult:
        """Run a trial in a worker of this process."""
        spec = self.specs[run_id]
        return worker.run(
            spec,
            lambda: find_checkpoint(self.cards[spec.factors.model]),
            self.data[spec.factors.task][spec.factors.data_key],
            attempt=self.attempts[run_id],
            placement=placement,
            on_step=on_step,
        )


class SweepResults:
    """Writes, counts and shows the trials of a sweep; never raises: an error here is a problem of the sweep.

    Args:
        loggers: called with each trial that succeeded.

    Attributes:
        canary: receives each trial that ended; a repeat is compared and nothing else. None without repeats.
    """

    def __init__(
        self,
        root: Path,
        inputs: SweepInputs,
        outcome: SweepOutcome,
        progress: SweepProgress,
        loggers: Sequence[TrialLogger] = (),
    ):
        self._root, self._inputs, self._loggers = root, inputs, loggers
        self._outcome, self._progress = outcome, progress
        self._noted: tuple[str, ...] = ()
        self._is_listed = (root / MANIFEST_FILE).is_file()
        self.canary: Canary | None = None

    def record(self, result: TrialResult) -> None:
        """Write the files of a trial that ended, count it, and log it; compare it if it is a repeat.

        Where they cannot be written, ``outcome.unwritable`` says why, the user reads it at once, and later results
        are dropped: each further trial would be trained for nothing.
        """
        if self.canary is not None:
            repeat = self.canary.is_repeat(result)
            self.guard(partial(self._watch, self.canary, result))
            if repeat:
                return
        if self._outcome.unwritable:
            return
        try:
            self._write(result)
        except Exception as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
            self._outcome.unwritable = (
                f"the files of {self._inputs.specs[result.row.run_id].factors} cannot be written to "
                f"{self._root} ({reason}): the sweep ends here; {CONTINUES}"
            )
            self._progress.note(f"error: {self._outcome.unwritable}.")
            return
        self.guard(lambda: self._count(result))
        if result.row.status == "ok":
            for logger in self._loggers:
                self.guard(partial(logger, self._inputs.specs[result.row.run_id], result))

    def show(self, run_ids: Iterable[str]) -> None:
        """Show and note the trials that train now."""
        self.guard(lambda: self._show(run_ids))

    def guard(self, action: Callable[[], None]) -> None:
        """Run an action; its error, if any, becomes a problem of the sweep."""
        try:
            action()
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            problem = f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"
            if problem not in self._outcome.problems:
                self._outcome.problems.append(problem)

    def _watch(self, canary: Canary, result: TrialResult) -> None:
        before = canary.repeats
        canary.finished(str(self._inputs.specs[result.row.run_id].factors), result)
        self._outcome.repeats += canary.repeats - before
        if canary.problem is not None and canary.problem not in self._outcome.problems:
            self._outcome.problems.append(canary.problem)

    def _write(self, result: TrialResult) -> None:
        # A folder that was removed would be made again, with nothing but this trial.
        if self._is_listed and not (self._root / MANIFEST_FILE).is_file():
            raise FileNotFoundError(ENOENT, f"the folder was removed or emptied: {MANIFEST_FILE} is gone")
        write_trial(self._root, result)

    def _count(self, result: TrialResult) -> None:
        row = result.row
        name = str(self._inputs.specs[row.run_id].factors)
        if row.status == "ok":
            self._outcome.done += 1
        else:
            self._outcome.failed.append((name, f"{row.status}: {row.error_type}: {row.error_message}"))
        self._progress.finished(name, row)

    def _show(self, run_ids: Iterable[str]) -> None:
        names = tuple(str(self._inputs.specs[run_id].factors) for run_id in run_ids)
        self._progress.refresh(names)
        if names != self._noted:
            self._noted = names
            note_running(self._root, names)
