"""Canaries: they fail when a release of Ray changes an internal that ``reproduce.run.tune_compat`` relies on."""

from __future__ import annotations

import inspect
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune
from ray.air.execution._internal import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train._internal.storage import StorageContext
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.stopper import CombinedStopper, NoopStopper
from ray.tune.utils.callback import _create_default_callbacks

from reproduce.run.tune_compat import (
    Assignment,
    RestartScheduler,
    SweepCallback,
    SweepStopper,
    errors_fail_only_their_trial,
    failure_reason,
    from_config,
    running,
    take_result,
    to_config,
    to_report,
)
from reproduce.store.parquet import TrialResult


def task_failed(exception: Exception) -> list[Exception]:
    """What Ray's actor manager passes to the callbacks of a task that ended with an exception."""
    passed: list[Exception] = []
    actor = SimpleNamespace(actor_id=1, _on_error=None)
    task = SimpleNamespace(_tracked_actor=actor, _on_error=lambda actor, error: passed.append(error))
    manager = object.__new__(RayActorManager)
    manager._failed_actor_ids = set()
    manager._cleanup_actor = lambda tracked_actor: None
    # By name, as Ray's event handlers do.
    manager._actor_task_failed(tracked_actor_task=task, exception=exception)
    return passed


def test_ray_still_ends_the_experiment_at_an_error_that_it_does_not_handle() -> None:
    """If this fails, Ray handles such errors itself, and the patch can go."""
    with pytest.raises(RuntimeError, match="unexpected exception"):
        task_failed(OutOfMemoryError("killed"))


def test_patched_such_an_error_is_a_dead_worker() -> None:
    assert list(inspect.signature(RayActorManager._actor_task_failed).parameters) == [
        "self",
        "tracked_actor_task",
        "exception",
    ]
    original = RayActorManager._actor_task_failed
    with errors_fail_only_their_trial():
        (error,) = task_failed(OutOfMemoryError("killed by the memory monitor"))
        assert isinstance(error, RayActorError)
        assert "killed by the memory monitor" in str(error)
        handled = RayActorError(error_msg="node lost")
        assert task_failed(handled) == [handled]
    assert RayActorManager._actor_task_failed is original


def test_the_scheduler_finds_the_controllers_methods() -> None:
    assert list(inspect.signature(FIFOScheduler.choose_trial_to_run).parameters) == [
        "self",
        "tune_controller",
    ]
    assert list(inspect.signature(TuneController.get_live_trials).parameters) == ["self"]
    assert list(inspect.signature(TuneController.stop_trial).parameters) == ["self", "trial"]
    stopped: list[str] = []
    trials = [
        SimpleNamespace(trial_id=name, status=status)
        for name, status in (("a", Trial.PENDING), ("b", Trial.RUNNING), ("c", Trial.PENDING))
    ]
    controller = SimpleNamespace(
        get_live_trials=lambda: trials,
        stop_trial=lambda trial: stopped.append(trial.trial_id),
        get_trials=list,
    )
    RestartScheduler(lambda: {"a", "b"}).choose_trial_to_run(controller)
    assert stopped == ["a"]


def test_a_trial_of_tune_has_what_is_read_of_it(tmp_path: Path) -> None:
    config = to_config(Assignment("id", {"CPU": 1.0}, None, True))
    trial = Trial("__fake", config=config, storage=StorageContext(str(tmp_path), "experiment"), stub=True)
    assert (Trial.RUNNING, Trial.PENDING) == ("RUNNING", "PENDING")
    assert trial.status == Trial.PENDING
    assert from_config(trial.config).run_id == "id"
    assert running([trial]) == []
    trial.set_status(Trial.RUNNING)
    assert [a.run_id for a in running([trial])] == ["id"]
    assert isinstance(Trial.error_file, property)


def test_the_reason_of_a_failure_names_no_machine(tmp_path: Path) -> None:
    assert failure_reason(SimpleNamespace(error_file=None)) == "the worker died"
    file = tmp_path / "error.txt"
    file.write_text("Failure # 1\nRay's text\n\nray.exceptions.OutOfMemoryError: node 10.0.0.7 /tmp/ray full")
    reason = failure_reason(SimpleNamespace(error_file=str(file)))
    assert reason == "ray.exceptions.OutOfMemoryError: node … … full"
    file.write_text("Failure # 1\nThe actor died unexpectedly")
    assert failure_reason(SimpleNamespace(error_file=str(file))) == "The actor died unexpectedly"


def test_tune_adds_no_reporter_next_to_the_sweeps() -> None:
    mine = SweepCallback()
    callbacks = _create_default_callbacks([mine], air_verbosity=None)
    assert [c for c in callbacks if isinstance(c, TrialProgressCallback)] == [mine]
    overridden = {name for name, value in vars(SweepCallback).items() if inspect.isfunction(value)}
    printing = {name for name in vars(TrialProgressCallback) if name.startswith("on_trial")}
    assert printing <= overridden


def test_tunes_snapshots_hold_neither_callback_nor_stopper() -> None:
    class Stopper(SweepStopper):
        display = staticmethod(lambda: None)

        def stop_all(self) -> bool:
            return False

    assert type(pickle.loads(pickle.dumps(SweepCallback()))) is tune.Callback
    assert type(pickle.loads(pickle.dumps(Stopper()))) is NoopStopper
    assert not CombinedStopper(Stopper())("trial", {})


def test_a_result_leaves_tunes_report() -> None:
    result = TrialResult({"run_id": "id"})
    report = to_report(result)
    assert report["done"]
    assert take_result(report) is result
    assert take_result(report) is None


SWEEP = """
import os, sys
from pathlib import Path
import ray
from ray import tune
from reproduce.process import set_environment
set_environment(single_machine=True)
from ray.tune.search import Searcher
from reproduce.run.tune_compat import *
from reproduce.store.parquet import TrialResult

mark = Path(sys.argv[1])

class Worker(tune.Trainable):
    def setup(self, config, word):
        self.word, self.run_id = word, from_config(config).run_id
    def reset_config(self, config):
        self.run_id = from_config(config).run_id
        return True
    def step(self):
        if self.run_id == "3" and not mark.exists():
            mark.touch()
            os._exit(1)
        return to_report(TrialResult({"run_id": self.run_id, "word": self.word, "process": os.getpid()}))

class Numbers(Searcher):
    left, live = list("12345"), {}
    def suggest(self, trial_id):
        if not self.left:
            return None if self.live else Searcher.FINISHED
        if self.live:
            return None
        self.live[trial_id] = self.left.pop(0)
        return to_config(Assignment(self.live[trial_id], {"CPU": 1.0}, None, True))
    def on_trial_complete(self, trial_id, result=None, error=False):
        run_id = self.live.pop(trial_id)
        if error:
            self.left.insert(0, run_id)
    def set_search_properties(self, *args, **kwargs):
        return True
    def save(self, path): pass
    def restore(self, path): pass

class Collect(SweepCallback):
    rows, errors = [], 0
    def on_trial_result(self, iteration, trials, trial, result, **info):
        taken = take_result(result)
        if taken is not None:
            self.rows.append(taken.row)
    def on_trial_error(self, iteration, trials, trial, **info):
        Collect.errors += 1
        print("reason:", failure_reason(trial))

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False,
         object_store_memory=128 * 2**20)
with errors_fail_only_their_trial():
    tune.Tuner(
        with_assigned_resources(Worker, word="shared"),
        tune_config=tune.TuneConfig(reuse_actors=True, search_alg=Numbers(), num_samples=-1,
                                    scheduler=RestartScheduler(set)),
        run_config=tune.RunConfig(storage_path=sys.argv[2], callbacks=[Collect()], verbose=0,
                                  checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False)),
    ).fit()
rows = Collect.rows
assert [row["run_id"] for row in rows] == list("12345"), rows
assert {row["word"] for row in rows} == {"shared"}
assert rows[0]["process"] == rows[1]["process"]
assert rows[2]["process"] == rows[3]["process"] == rows[4]["process"] != rows[0]["process"]
assert Collect.errors == 1
print("ok")
"""


@pytest.mark.sweep
def test_a_small_sweep_reuses_workers_and_survives_the_death_of_one(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", SWEEP, str(tmp_path / "mark"), str(tmp_path / "storage")],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reason: The actor died unexpectedly" in done.stdout
    assert done.stdout.endswith("ok\n")


def test_the_environment_is_set_by_a_call_not_by_an_import() -> None:
    code = (
        "import os, sys\n"
        "prefixes = ('KINETO', 'TORCH', 'CUBLAS', 'TUNE', 'RAY', 'CUDA')\n"
        "ours = lambda: {n: v for n, v in os.environ.items() if n.startswith(prefixes)}\n"
        "before = ours()\n"
        "import reproduce, reproduce.process, reproduce.cli.app, reproduce.cli.options, reproduce.cli.commands\n"
        "assert ours() == before, ours()\n"
        # Ray itself sets one when it is imported.
        "import ray; before = ours()\n"
        "import reproduce.run.pipeline, reproduce.run.warm_trial\n"
        "assert ours() == before, ours()\n"
        # A worker imports this much before its set-up sets the variables that torch reads at import.
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
        "os.environ['KINETO_LOG_LEVEL'] = '5'\n"
        "reproduce.process.set_environment()\n"
        "assert os.environ['KINETO_LOG_LEVEL'] == '5'\n"
        "assert os.environ['CUBLAS_WORKSPACE_CONFIG'] == ':4096:8'\n"
        "assert 'RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER' not in os.environ\n"
        "reproduce.process.set_environment(single_machine=True)\n"
        "assert os.environ['RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER'] == '0'\n"
    )
    environment: dict[str, Any] = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("KINETO", "TORCH", "CUBLAS", "TUNE", "RAY"))
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
