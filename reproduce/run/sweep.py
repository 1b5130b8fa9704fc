"""The grid as Ray Tune trials: reused warm actors, rows written by the driver as they come.

Resuming is not Tune's: a launch is given only the trials that have no finished files.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# Tune's own loggers and snapshots cost more than a tiny trial; nothing here reads them.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")
os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "16")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")

import ray
from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.stopper import CombinedStopper

from lfreeze.data.tasks import TaskData
from lfreeze.models.catalog import ModelCard, find_checkpoint
from reproduce.plan.inputs import SpaceInputs
from reproduce.plan.spec import Factors, TrialSpec
from reproduce.run.dispatcher import Dispatcher, Rescue, StopWhenDeserted, every_error_is_a_trials
from reproduce.run.placement import Resources
from reproduce.run.progress import SweepProgress, outcome
from reproduce.run.telemetry import SweepGauge, TrialGauges
from reproduce.store.artifacts import note_running
from reproduce.store.parquet import TrialResult, write_trial
from reproduce.store.row_values import failed_row, started_row

_PAYLOAD = "payload"


@dataclass(frozen=True)
class Shared:
    """What every worker needs, sent once through Ray's object store."""

    specs: Mapping[str, TrialSpec]
    attempts: Mapping[str, int]
    cards: Mapping[str, ModelCard]
    data: Mapping[str, TaskData]


@dataclass
class SweepOutcome:
    """What a sweep did; ``problems`` are faults of the sweep itself, not of its trials."""

    done: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class WarmTrial(tune.Trainable):
    """A Tune trial; its actor is reused, and with it the loaded model."""

    def setup(self, config: dict[str, Any], shared: Shared) -> None:
        from reproduce.run.worker import TrialWorker

        if config["trial"]["gpu_share"] is None:
            # Ray shows every GPU to a worker that asked for none, unless its node was started otherwise.
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._shared, self._worker, self._gauges = shared, TrialWorker(), TrialGauges()
        self._trial = config["trial"]

    def __repr__(self) -> str:
        # Read once, when the actor is made; its trials are in its log.
        return "lfreeze worker"

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._trial = new_config["trial"]
        return True

    def step(self) -> dict[str, Any]:
        from reproduce.run.worker import Placement

        shared, run_id = self._shared, self._trial["run_id"]
        spec = shared.specs[run_id]
        if self._worker.broken:
            # A GPU context that failed fails for good: this trial begins again in another worker.
            os._exit(1)
        self._gauges.begin(spec.factors)
        # In the log that the dashboard shows first.
        print(f"{spec.factors}: begins", file=sys.stderr, flush=True)
        result = self._worker.run(
            spec,
            lambda: find_checkpoint(shared.cards[spec.factors.model]),
            shared.data[spec.factors.task],
            attempt=shared.attempts[run_id],
            placement=Placement(self._trial["gpu_share"], self._trial["exclusive"]),
            on_step=self._gauges.step,
        )
        self._gauges.end(result.row)
        print(f"{spec.factors}: {outcome(result.row)}", file=sys.stderr, flush=True)
        return {_PAYLOAD: result, "run_id": run_id, "done": True}


class Recorder(TrialProgressCallback):
    """Writes each row as it comes; never raises, since that would end the whole sweep.

    Tune adds no teller of its own beside one of this class.
    """

    def __init__(
        self,
        root: Path,
        shared: Shared,
        outcome: SweepOutcome,
        progress: SweepProgress,
        taken_back: Callable[[str], bool],
    ):
        self._root, self._shared, self._taken_back = root, shared, taken_back
        self._outcome, self._progress = outcome, progress
        self._noted: tuple[str, ...] = ()
        self._gauge = SweepGauge()

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune pickles its callbacks into a snapshot that nothing reads; this one holds a display.
        return tune.Callback, ()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        # Taken out of the result, so that Tune's own record of the experiment stays small.
        payload = result.pop(_PAYLOAD, None)
        if payload is not None:
            self._guard(lambda: self._record(payload))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        def record() -> None:
            if self._taken_back(trial.trial_id):
                self._again(trial)
                return
            spec = self._shared.specs[trial.config["trial"]["run_id"]]
            now = datetime.now(UTC)
            message = _why(Path(trial.error_file) if trial.error_file else None)
            row = started_row(spec, self._shared.attempts[spec.run_id])
            row = failed_row(row, "error", "WorkerDied", message)
            self._record(TrialResult(replace(row, started_at=now, finished_at=now)))

        self._guard(record)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Its result has told of it."""

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._guard(lambda: self._show(trials))

    def _again(self, trial: Any) -> None:
        self._progress.note(f"a worker died; again from its start: {trial}")

    def _record(self, result: TrialResult) -> None:
        write_trial(self._root, result)
        row = result.row
        cell = str(Factors(row.model, row.task, row.strategy, row.seed))
        if row.status == "ok":
            self._outcome.done += 1
        else:
            self._outcome.failed.append((cell, f"{row.status}: {row.error_type}: {row.error_message}"))
        self._progress.finished(cell, row)

    def _show(self, trials: list[Any]) -> None:
        running = tuple(t.config["trial"]["name"] for t in trials if t.status == "RUNNING")
        self._progress.refresh(running)
        self._gauge.show(self._progress.counts())
        if running != self._noted:
            self._noted = running
            note_running(self._root, running)

    def _guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            problem = f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"
            if problem not in self._outcome.problems:
                self._outcome.problems.append(problem)


def _why(file: Path | None) -> str:
    """What Ray says of a worker's death, without what would name a machine or its folders."""
    lines = file.read_text("utf-8").strip().splitlines() if file is not None and file.is_file() else []
    # The first says which failure it was; an error of the worker's own comes last, Ray's own words first.
    own = [line for line in lines[2:] if re.match(r"\w+(\.\w+)*(Error|Exception): ", line)]
    text = own[-1] if own else next(iter(lines[1:]), "the worker died")
    return re.sub(r"\S*(\d+\.\d+\.\d+\.\d+|/\w+/)\S*", "…", text)[:500]


class StopAtFirstFailure(tune.Stopper):
    """Ends the sweep once a trial has failed."""

    def __init__(self, outcome: SweepOutcome):
        self._outcome = outcome

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return bool(self._outcome.failed)


def run_sweep(
    specs: Sequence[TrialSpec],
    inputs: SpaceInputs,
    root: Path,
    *,
    resources: Resources,
    attempts: Mapping[str, int],
    finished_before: int = 0,
    fail_fast: bool = False,
) -> SweepOutcome:
    """Run the given trials in the Ray session that is open, and write each one's files as it ends.

    Args:
        attempts: by run id, which attempt this is.
        finished_before: trials of the space that need no run, for the display.
    """
    outcome = SweepOutcome()
    with contextlib.ExitStack() as stack:
        scratch = Path(tempfile.mkdtemp(prefix="lfreeze-"))
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        concurrency = resources.concurrency(ray.cluster_resources())
        shared = Shared({spec.run_id: spec for spec in specs}, attempts, inputs.cards, inputs.data)
        progress = stack.enter_context(SweepProgress(len(specs), finished_before))
        alone = concurrency == 1 or len(specs) == 1
        dispatcher = Dispatcher(specs, resources, alone=alone)
        recorder = Recorder(root, shared, outcome, progress, dispatcher.taken_back)
        stoppers: list[tune.Stopper] = [StopWhenDeserted(dispatcher, progress.note)]
        if fail_fast:
            stoppers.append(StopAtFirstFailure(outcome))
        trainable = tune.with_resources(
            tune.with_parameters(WarmTrial, shared=shared),
            lambda config: tune.PlacementGroupFactory([config["trial"]["resources"]]),
        )
        # What the dashboard calls a worker's class.
        trainable.__name__ = trainable.__qualname__ = WarmTrial.__name__
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                # A node that joins is not to share the device of a trial that counts as alone.
                max_concurrent_trials=1 if alone else resources.max_concurrent,
                trial_name_creator=lambda trial: trial.config["trial"]["name"],
                trial_dirname_creator=lambda trial: trial.trial_id,
                search_alg=dispatcher,
                scheduler=Rescue(dispatcher),
                # As many as the dispatcher has.
                num_samples=-1,
            ),
            run_config=tune.RunConfig(
                name=f"lfreeze-{datetime.now(UTC):%Y%m%d-%H%M%S}",
                storage_path=str(scratch),
                callbacks=[recorder],
                verbose=0,
                stop=CombinedStopper(*stoppers),
                # A class without save_checkpoint fails at its end otherwise, which ends reuse too.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        with every_error_is_a_trials():
            tuner.fit()
    return outcome
