"""A sweep in this process, one trial after another, without Ray: for a batch system's jobs and small machines."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reproduce.plan.inputs import SpaceInputs
from reproduce.plan.spec import TrialSpec
from reproduce.process import CONTINUES, garbage_kept, raise_if_ended
from reproduce.run.canary import Canary
from reproduce.run.outcome import SweepOutcome
from reproduce.run.progress import SweepProgress
from reproduce.run.results import SweepInputs, SweepOptions, SweepResults

if TYPE_CHECKING:
    from lfreeze.training.record import Step

_SHOW_SECONDS = 1.0


def run_inline(
    specs: Sequence[TrialSpec],
    inputs: SpaceInputs,
    root: Path,
    options: SweepOptions,
    *,
    gpu_share: float,
) -> SweepOutcome:
    """Run trials in their order, each alone on the device, and write each one's files as it ends.

    Args:
        gpu_share: the part of the GPU's memory that a trial may use; 0 for the CPU.
    """
    with garbage_kept():
        from reproduce.run.worker import Placement, TrialWorker

    outcome = SweepOutcome()
    sweep_inputs = SweepInputs({s.run_id: s for s in specs}, options.attempts, inputs.cards, inputs.data)
    worker = TrialWorker(cpu=not gpu_share)
    placement = Placement(gpu_share or None)
    with SweepProgress(len(specs), options.finished_before, options.skipped) as progress:
        results = SweepResults(root, sweep_inputs, outcome, progress, options.loggers)
        watch = results.canary = Canary(options.canary) if options.canary else None
        shown = [0.0]
        waiting = deque(spec.run_id for spec in specs)
        while waiting:
            run_id = waiting.popleft()

            def show(step: Step | None = None, run_id: str = run_id) -> None:
                if step is None or time.monotonic() - shown[0] >= _SHOW_SECONDS:
                    shown[0] = time.monotonic()
                    results.show([run_id])

            show()
            result = sweep_inputs.run(worker, run_id, placement, show)
            # The signal's exception may have become the trial's, which has not failed.
            raise_if_ended()
            results.record(result)
            if worker.broken:
                outcome.problems.append(f"the GPU no longer responds to this process: {CONTINUES}")
            if worker.broken or outcome.ends_early(options.fail_fast) or (watch and watch.problem):
                break
            if watch and (due := watch.take_due()):
                waiting.appendleft(due)
        results.show([])
    return outcome
