"""The grid as Ray Tune trials: reused workers, rows written by the driver as they arrive.

Trials with different shares of a GPU are classes of their own, which run one after another, each with its own
workers. Tune does not resume sweeps here: each launch runs the trials that have no finished files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.stopper import CombinedStopper

from reproduce.plan.inputs import SpaceInputs
from reproduce.plan.spec import TrialSpec
from reproduce.process import raise_if_ended
from reproduce.run.canary import Canary
from reproduce.run.dispatcher import Dispatcher, StopWhenNoNodes
from reproduce.run.outcome import SweepOutcome
from reproduce.run.placement import Resources
from reproduce.run.progress import SweepProgress
from reproduce.run.results import SweepInputs, SweepOptions, SweepResults
from reproduce.run.telemetry import SweepGauge
from reproduce.run.traces import scratch_folder
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
from reproduce.run.warm_trial import WarmTrial
from reproduce.store.parquet import TrialResult
from reproduce.store.row_values import failed_row, started_row


@dataclass(frozen=True)
class SweepClass:
    """Trials that run at the same time, in the order of running, and what each runs with and where."""

    specs: Sequence[TrialSpec]
    resources: Resources


class Recorder(SweepCallback):
    """Passes each result on as it arrives; never raises, since that would end the whole sweep.

    Args:
        restarts: whether a trial of this id, which ended without a result, runs again.
    """

    def __init__(
        self,
        results: SweepResults,
        inputs: SweepInputs,
        progress: SweepProgress,
        gauge: SweepGauge,
        restarts: Callable[[str], bool],
    ):
        super().__init__()
        self._results, self._inputs, self._restarts = results, inputs, restarts
        self._progress, self._gauge = progress, gauge

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        trial_result = take_result(result)
        if trial_result is not None:
            self._results.record(trial_result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if self._restarts(trial.trial_id):
            self._results.guard(lambda: self._progress.note(f"a worker died; its trial restarts: {trial}"))
        else:
            self._results.guard(lambda: self._results.record(self._lost(trial)))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        raise_if_ended()
        self._results.guard(lambda: self._results.show([each.run_id for each in running(trials)]))
        self._results.guard(lambda: self._gauge.show(self._progress.counts()))

    def _lost(self, trial: Any) -> TrialResult:
        """The row of a trial whose workers died too often."""
        spec = self._inputs.specs[from_config(trial.config).run_id]
        now = datetime.now(UTC)
        row = started_row(spec, self._inputs.attempts[spec.run_id])
        row = failed_row(row, "error", "WorkerDied", failure_reason(trial))
        return TrialResult(replace(row, started_at=now, finished_at=now))


class StopWhen(SweepStopper):
    """Ends the sweep once a condition holds."""

    def __init__(self, condition: Callable[[], bool]):
        self._condition = condition

    def stop_all(self) -> bool:
        return self._condition()


def run_sweep(
    classes: Sequence[SweepClass],
    inputs: SpaceInputs,
    root: Path,
    options: SweepOptions,
) -> SweepOutcome:
    """Run trials in the open Ray session, one class after another, and write each trial's files as it ends.

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
        scratch = stack.enter_context(scratch_folder())
        sweep_inputs = SweepInputs(specs, options.attempts, inputs.cards, inputs.data)
        progress = stack.enter_context(SweepProgress(len(specs), options.finished_before, options.skipped))
        gauge = SweepGauge()
        results = SweepResults(root, sweep_inputs, outcome, progress, options.loggers)
        for index, each in enumerate(classes):
            # A class of its own: a trial may need another share of a GPU than those of the next class.
            watch = results.canary = Canary(options.canary) if options.canary else None
            dispatcher = Dispatcher(each.specs, each.resources, alone=alone[index], canary=watch)
            no_nodes = StopWhenNoNodes(dispatcher.without_nodes, progress.note)
            ends = StopWhen(partial(_ends, outcome, options.fail_fast, watch))
            stoppers: list[SweepStopper] = [no_nodes, ends]
            recorder = Recorder(results, sweep_inputs, progress, gauge, dispatcher.restarts)
            tuner = _tuner(dispatcher, recorder, stoppers, sweep_inputs, scratch / f"class-{index}")
            with errors_fail_only_their_trial():
                tuner.fit()
            if no_nodes.ended or ends.stop_all():
                break
    return outcome


def _ends(outcome: SweepOutcome, fail_fast: bool, canary: Canary | None) -> bool:
    """Whether results cannot be written, a trial failed where one failure is enough, or a repeat gave other numbers."""
    return outcome.ends_early(fail_fast) or (canary is not None and canary.problem is not None)


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
