"""One experiment: a fault in a running sweep, the same command again, then a comparison with an undisturbed run."""

from __future__ import annotations

import random
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from reproduce.store.artifacts import read_folder
from reproduce.verify import verify
from tests.faults.faults import Fault, moment
from tests.faults.sweep import N_TRIALS, Sweep, clear, mounted, run, unmounted

NO_SMALL_DISK = "a small file system cannot be mounted here"
_DISK = "size=12m,nr_inodes=4k"
# A path that a driver prints with an error is no secret, but a traceback is no sentence.
_TRACEBACK = re.compile(r"^Traceback|panicked at", re.MULTILINE)


@dataclass
class Outcome:
    """What an experiment showed; it went well if ``faults`` is empty.

    Attributes:
        injected: whether the sweep ran long enough for the fault.
        finished_before: the trials that had finished at that moment.
        status: the exit status of the sweep with the fault.
        seconds_to_end: from the fault to the end of that sweep.
        lost, different: finished trials that had to run again; trials whose numbers differ from the undisturbed
            run's, or that have no result in the end.
        faults: in words, all that did not go as it should.
    """

    fault: str
    seed: int
    injected: bool = False
    finished_before: int = 0
    status: int | None = 0
    seconds_to_end: float = 0.0
    lost: int = 0
    different: int = 0
    faults: list[str] = field(default_factory=list)
    output: str = ""


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder with a short name, since Ray's sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="lf", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def undisturbed(root: Path, folder: Path) -> float:
    """Run the sweep without a fault and without Ray, one trial after another; its seconds."""
    started = time.monotonic()
    sweep = run(root, folder, ("--engine", "inline", "--no-report"))
    status = sweep.end()
    seconds = time.monotonic() - started
    clear(sweep)
    if status != 0 or read_folder(root).done != N_TRIALS:
        raise RuntimeError(f"the undisturbed sweep ended with status {status}: {sweep.output}")
    return seconds


def experiment(fault: Fault, seed: int, baseline: Path, folder: Path) -> Outcome:
    """Inject a fault at a moment that the seed draws, run the command again, and compare.

    Args:
        baseline: the artifact folder of an undisturbed run.
        folder: a scratch folder with a short path.
    """
    source, outcome = random.Random(f"{fault.name} {seed}"), Outcome(fault.name, seed)
    root = Path(tempfile.mkdtemp(prefix="a", dir=folder)) / "artifacts"
    if fault.small_disk and not mounted(root, _DISK):
        outcome.faults.append(NO_SMALL_DISK)
        return outcome
    try:
        sweep = run(root, folder, fault.options)
        before: dict[Path, int] = {}
        if moment(fault, sweep, source):
            before = _times(sweep)
            outcome.injected = fault.inject(sweep, source)
        injected = time.monotonic()
        outcome.finished_before = len(before)
        outcome.status = sweep.end()
        outcome.seconds_to_end = time.monotonic() - injected
        _judge_end(fault, sweep, outcome)
        clear(sweep)
        if fault.restore is not None:
            fault.restore(root)
        _continue(fault, root, folder, before, baseline, outcome)
    finally:
        if fault.small_disk:
            unmounted(root)
    return outcome


def _times(sweep: Sweep) -> dict[Path, int]:
    times = {}
    for path in sweep.finished():
        try:
            times[path] = path.stat().st_mtime_ns
        except FileNotFoundError:  # an earlier attempt's row, which is being replaced
            continue
    return times


def _judge_end(fault: Fault, sweep: Sweep, outcome: Outcome) -> None:
    outcome.output = sweep.output[-3000:]
    if not outcome.injected:
        return
    if outcome.status is None:
        outcome.faults.append("it did not end")
    elif fault.statuses is not None and outcome.status not in fault.statuses:
        accepted = " or ".join(map(str, fault.statuses))
        outcome.faults.append(f"it ended with status {outcome.status}, not {accepted}")
    if _TRACEBACK.search(sweep.output):
        outcome.faults.append("it printed a traceback")
    # A killed process removes nothing; the next run does.
    if outcome.status is not None and outcome.status >= 0 and (left := sweep.leftovers()):
        outcome.faults.append(f"it left {', '.join(left)}")


def _continue(
    fault: Fault, root: Path, folder: Path, before: dict[Path, int], baseline: Path, outcome: Outcome
) -> None:
    again = run(root, folder, fault.options)
    status = again.end()
    if status != 0:
        outcome.faults.append(f"the same command again ended with status {status}: {again.output[-500:]}")
    elif left := again.leftovers():
        outcome.faults.append(f"the same command again left {', '.join(left)}")
    clear(again)
    after = _times(again)
    outcome.lost = sum(after.get(path) != when for path, when in before.items())
    if outcome.lost and not fault.damages:
        outcome.faults.append(f"{outcome.lost} finished trials ran again")
    if len(after) != len({path.name for path in after}) or len(after) > N_TRIALS:
        outcome.faults.append("a trial is there twice")
    checks = verify(read_folder(root), read_folder(baseline))
    wrong = [check for check in checks if check.passed is False and check.name not in ("image", "memory")]
    outcome.different = N_TRIALS - read_folder(root).done + sum(check.name == "exact" for check in wrong)
    outcome.faults += [f"{check.name}: {check.sentence}; {'; '.join(check.details)}" for check in wrong]
