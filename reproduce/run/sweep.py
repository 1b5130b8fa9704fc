"""The grid as Ray Tune trials: reused workers, rows written by the driver as they arrive.

Trials with different shares of a GPU are classes of their own, which run one after another, each with its own
workers. Tune does not resume sweeps here: each launch runs the trials that have no finished files.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.stopper import CombinedStopper

from reproduce.plan.inputs import SpaceInputs
from reproduce.plan.spec import TrialSpec
from reproduce.run.dispatcher import Dispatcher, StopWhenNoNodes
from reproduce.run.outcome import SweepOutcome
from reproduce.run.placement import Resources
from reproduce.run.progress import SweepProgress
from reproduce.run.telemetry import SweepGauge
from reproduce.run.tune_compat import (
    RestartScheduler,
    SweepCallback,
    SweepStopper,
    errors_fail_only_their_trial,
    failure_reason,
    from_config,
    running,
    take_result,
    with_assigned_resources,
)
from reproduce.run.warm_trial import SweepInputs, WarmTrial
from reproduce.store.artifacts import note_running
from reproduce.store.parquet import TrialResult, write_trial
from reproduce.store.row_values import failed_row, started_row


@dataclass(frozen=True)
class SweepClass:
    """Trials that run at the same time, in the order of running, and what each runs with and where."""

    specs: Sequence[TrialSpec]
    resources: Resources


class Recorder(SweepCallback):
    """Writes each row as it arrives; never raises, since that would end the whole sweep.

    Args:
        restarts: whether a trial of this id, which ended without a result, runs again.
    """

    def __init__(
        self,
        root: Path,
        inputs: SweepInputs,
        outcome: SweepOutcome,
        progress: SweepProgress,
        gauge: SweepGauge,
        restarts: Callable[[str], bool],
    ):
        super().__init__()
        self._root, self._inputs, self._restarts = root, inputs, restarts
        self._outcome, self._progress, self._gauge = outcome, progress, gauge
        self._noted: tuple[str, ...] = ()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        trial_result = take_result(result)
        if trial_result is not None:
            self._guard(lambda: self._record(trial_result))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if self._restarts(trial.trial_id):
            self._guard(lambda: self._progress.note(f"a worker died; its trial restarts: {trial}"))
        else:
            self._guard(lambda: self._record(self._lost(trial)))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._guard(lambda: self._show(trials))

    def _lost(self, trial: Any) -> TrialResult:
        """The row of a trial whose workers died too often."""
        spec = self._inputs.specs[from_config(trial.config).run_id]
        now = datetime.now(UTC)
        row = started_row(spec, self._inputs.attempts[spec.run_id])
        row = failed_row(row, "error", "WorkerDied", failure_reason(trial))
        return TrialResult(replace(row, started_at=now, finished_at=now))

    def _record(self, result: TrialResult) -> None:
        write_trial(self._root, result)
        row = result.row
        name = str(self._inputs.specs[row.run_id].factors)
        if row.status == "ok":
            self._outcome.done += 1
        else:
            self._outcome.failed.append((name, f"{row.status}: {row.error_type}: {row.error_message}"))
        self._progress.finished(name, row)

    def _show(self, trials: list[Any]) -> None:
        names = tuple(str(self._inputs.specs[a.run_id].factors) for a in running(trials))
        self._progress.refresh(names)
        self._gauge.show(self._progress.counts())
        if names != self._noted:
            self._noted = names
            note_running(self._root, names)

    def _guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            problem = f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"
            if problem not in self._outcome.problems:
                self._outcome.problems.append(problem)


class StopAtFirstFailure(SweepStopper):
    """Ends the sweep once a trial has failed."""

    def __init__(self, outcome: SweepOutcome):
        self._outcome = outcome

    def stop_all(self) -> bool:
        return bool(self._outcome.failed)


def run_sweep(
    classes: Sequence[SweepClass],
    inputs: SpaceInputs,
    root: Path,
    *,
    attempts: Mapping[str, int],
    finished_before: int = 0,
    skipped: int = 0,
    fail_fast: bool = False,
) -> SweepOutcome:
    """Run trials in the open Ray session, one class after another, and write each trial's files as it ends.

    Args:
        attempts: by run id, the number of this attempt, from 1.
        finished_before: trials of the space that are finished already, for the display.
        skipped: trials of the space that do not fit the GPUs, for the display.

    Raises:
        InputError: the cluster has too few CPUs or GPUs for a single trial.
    """
    outcome = SweepOutcome()
    specs = {spec.run_id: spec for each in classes for spec in each.specs}
    # Before anything is trained, for all classes.
    alone = [
        each.resources.concurrency(ray.cluster_resources()) == 1 or len(each.specs) == 1 for each in classes
    ]
    with contextlib.ExitStack() as stack:
        scratch = Path(tempfile.mkdtemp(prefix="lfreeze-"))
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        sweep_inputs = SweepInputs(specs, attempts, inputs.cards, inputs.data)
        progress = stack.enter_context(SweepProgress(len(specs), finished_before, skipped))
        gauge = SweepGauge()
        for index, each in enumerate(classes):
            dispatcher = Dispatcher(each.specs, each.resources, alone=alone[index])
            no_nodes = StopWhenNoNodes(dispatcher.without_nodes, progress.note)
            stoppers: list[SweepStopper] = [no_nodes]
            if fail_fast:
                stoppers.append(StopAtFirstFailure(outcome))
            recorder = Recorder(root, sweep_inputs, outcome, progress, gauge, dispatcher.restarts)
            tuner = _tuner(dispatcher, recorder, stoppers, sweep_inputs, scratch / f"class-{index}")
            with errors_fail_only_their_trial():
                tuner.fit()
            if no_nodes.ended or (fail_fast and outcome.failed):
                break
    return outcome


def _tuner(
    dispatcher: Dispatcher,
    recorder: Recorder,
    stoppers: Sequence[tune.Stopper],
    inputs: SweepInputs,
    scratch: Path,
) -> tune.Tuner:
    """One class as a Tune experiment: its workers are its own, and end with it."""
    return tune.Tuner(
        with_assigned_resources(WarmTrial, inputs=inputs),
        tune_config=tune.TuneConfig(
            reuse_actors=True,
            max_concurrent_trials=dispatcher.max_concurrent,
            trial_name_creator=lambda trial: str(inputs.specs[from_config(trial.config).run_id].factors),
            trial_dirname_creator=lambda trial: trial.trial_id,
            search_alg=dispatcher,
            scheduler=RestartScheduler(dispatcher.stranded),
            # As many as the dispatcher has.
            num_samples=-1,
        ),
        run_config=tune.RunConfig(
            name=f"lfreeze-{datetime.now(UTC):%Y%m%d-%H%M%S}",
            storage_path=str(scratch),
            callbacks=[recorder],
            verbose=0,
            stop=CombinedStopper(*stoppers),
            # A class without save_checkpoint otherwise fails at its end, which also ends reuse.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
