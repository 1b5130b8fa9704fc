"""Everything that depends on the internals of Ray and Ray Tune, in one module.

``tests/reproduce/run/test_tune_compat.py`` fails when a release of Ray changes what this module relies on;
``pyproject.toml`` admits the releases on which those tests passed.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray._common.utils import get_default_ray_temp_dir
from ray._private import services
from ray.air.execution._internal import RayActorManager
from ray.exceptions import RayActorError, RayTaskError
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.stopper import NoopStopper

from reproduce.store.parquet import TrialResult

# Where Ray stores the token that it makes, and its folders of sessions, below its temporary folder.
TOKEN_FILE = Path.home() / ".ray" / "auth_token"
SESSIONS = "session_*"
_SESSION_OF = "ray/session_*_{pid}"
_ASSIGNMENT = "assignment"
_RESULT = "trial_result"


@dataclass(frozen=True)
class Assignment:
    """One trial as Tune carries it: its run id, and what it runs with.

    Attributes:
        resources: what Ray reserves for it, by Ray's names.
        gpu_share: the part of a GPU; None on the CPU.
        exclusive: whether it has its device to itself.
    """

    run_id: str
    resources: Mapping[str, float]
    gpu_share: float | None
    exclusive: bool


def to_config(assignment: Assignment) -> dict[str, Any]:
    """The dictionary that Tune requires in place of an assignment."""
    return {_ASSIGNMENT: assignment}


def from_config(config: Mapping[str, Any]) -> Assignment:
    """The assignment that ``to_config`` put into a trial's configuration."""
    assignment: Assignment = config[_ASSIGNMENT]
    return assignment


def to_report(result: TrialResult) -> dict[str, Any]:
    """The dictionary that Tune requires from a finished trial."""
    return {_RESULT: result, "done": True}


def take_result(report: dict[str, Any]) -> TrialResult | None:
    """Remove a trial's result from Tune's report, so that Tune's own record of the experiment stays small."""
    result: TrialResult | None = report.pop(_RESULT, None)
    return result


def running(trials: Collection[Any]) -> list[Assignment]:
    """The assignments of Tune's trials that run now."""
    return [from_config(trial.config) for trial in trials if trial.status == "RUNNING"]


def failure_reason(trial: Any) -> str:
    """Why a trial's worker died, from the file in which Tune keeps the error; without addresses or paths."""
    file = Path(trial.error_file) if trial.error_file else None
    lines = file.read_text("utf-8").strip().splitlines() if file is not None and file.is_file() else []
    # The first line says which failure it was; an error raised in the worker stands last, after Ray's own text.
    raised = [line for line in lines[2:] if re.match(r"\w+(\.\w+)*(Error|Exception): ", line)]
    text = raised[-1] if raised else next(iter(lines[1:]), "the worker died")
    return re.sub(r"\S*(\d+\.\d+\.\d+\.\d+|/\w+/)\S*", "…", text)[:500]


def with_assigned_resources(trainable: type[tune.Trainable], **parameters: Any) -> Any:
    """A trainable that receives the parameters through the object store, and the resources of its assignment."""
    prepared = tune.with_resources(
        tune.with_parameters(trainable, **parameters),
        lambda config: tune.PlacementGroupFactory([dict(from_config(config).resources)]),
    )
    # The dashboard shows this name for the workers' class.
    prepared.__name__ = prepared.__qualname__ = trainable.__name__
    return prepared


class SweepCallback(TrialProgressCallback):
    """Base of the sweep's callback: prints nothing, and Tune adds no reporter of its own next to it."""

    def __init__(self) -> None:
        """Without Tune's, which prepares its printing."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune pickles callbacks into a snapshot that nothing reads; the sweep's holds a display.
        return tune.Callback, ()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        pass

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        pass

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        pass


class SweepStopper(tune.Stopper):
    """Base of stoppers that end a whole sweep, never a single trial."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune pickles stoppers into a snapshot that nothing reads; the sweep's hold a display.
        return NoopStopper, ()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False


class RestartScheduler(FIFOScheduler):
    """Runs trials in order, and takes those back from Tune that wait for a node that has left.

    Args:
        stranded: gives the ids of trials that wait at such nodes.
    """

    def __init__(self, stranded: Callable[[], Collection[str]]):
        super().__init__()
        self._stranded = stranded

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        stranded = self._stranded()
        if stranded:
            for trial in [t for t in tune_controller.get_live_trials() if t.trial_id in stranded]:
                # A running one ends when Ray finds its worker dead; then it waits here too.
                if trial.status == "PENDING":
                    tune_controller.stop_trial(trial)
        return super().choose_trial_to_run(tune_controller)


def session_folders(temporary: Path) -> list[Path]:
    """The folders of the sessions that this process has started, below a temporary folder."""
    return list(temporary.glob(_SESSION_OF.format(pid=os.getpid())))


@contextlib.contextmanager
def services_in_own_groups(groups: list[int]) -> Iterator[None]:
    """Start Ray's services in process groups of their own, so that a signal to this one's does not end them.

    A driver that loses its raylet is ended with status 1 by compiled code, which nothing here can prevent.

    Args:
        groups: receives the group of each service.
    """
    popen = services.ConsolePopen

    class OwnGroupPopen(popen):  # type: ignore[valid-type,misc]
        def __init__(self, *arguments: Any, **options: Any):
            super().__init__(*arguments, **options, process_group=0)
            groups.append(self.pid)

    services.ConsolePopen = OwnGroupPopen
    try:
        yield
    finally:
        services.ConsolePopen = popen


def ray_temporary_folder() -> Path:
    """The folder that holds the folders of Ray's sessions."""
    return Path(get_default_ray_temp_dir())


def end_groups(groups: Collection[int], seconds: float = 2.0) -> None:
    """Kill what Ray's shutdown left of its services and their children, and wait for them to end."""
    deadline = time.monotonic() + seconds
    left = set(groups)
    while left and time.monotonic() < deadline:
        for group in tuple(left):
            try:
                os.killpg(group, signal.SIGKILL)
                os.waitpid(group, os.WNOHANG)
            except ProcessLookupError:
                left.discard(group)
            except ChildProcessError:
                # The service has ended; one of its children has not.
                continue
        time.sleep(0.01)


@contextlib.contextmanager
def errors_fail_only_their_trial() -> Iterator[None]:
    """Treat any error that Ray reports of a task as the death of the worker that ran it.

    Tune ends the whole experiment at errors that it does not handle: a worker that Ray's memory monitor
    killed while it trained, a result that was lost with its node.
    """
    handle = RayActorManager._actor_task_failed

    def handle_any(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        handled = isinstance(exception, RayActorError | RayTaskError)
        handle(self, tracked_actor_task, exception if handled else RayActorError(error_msg=str(exception)))

    RayActorManager._actor_task_failed = handle_any
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = handle
