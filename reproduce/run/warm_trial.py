"""The class that Ray runs in each worker process: one trial after another, with the model kept loaded.

Importing this module imports neither torch nor transformers, so that a worker sets its environment first.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from ray import tune

from reproduce.process import garbage_kept, set_environment
from reproduce.run.progress import outcome
from reproduce.run.results import SweepInputs
from reproduce.run.tune_compat import from_config, to_report


class WarmTrial(tune.Trainable):
    """A Tune trial whose process is reused for the next one, with the model that it has loaded."""

    def setup(self, config: dict[str, Any], inputs: SweepInputs) -> None:
        set_environment()
        self._assignment = from_config(config)
        if self._assignment.gpu_share is None:
            # Ray shows every GPU to a worker that requests none, unless its node was started otherwise.
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        with garbage_kept():
            from reproduce.run.telemetry import TrialGauges
            from reproduce.run.worker import TrialWorker

        self._inputs, self._worker, self._gauges = inputs, TrialWorker(), TrialGauges()

    def __repr__(self) -> str:
        # Read once, when the actor is made; the log names its trials.
        return "lfreeze worker"

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._assignment = from_config(new_config)
        return True

    def step(self) -> dict[str, Any]:
        from reproduce.run.worker import Placement

        if self._worker.broken:
            # A failed GPU context cannot be repaired: this trial restarts in another worker.
            os._exit(1)
        assignment, inputs = self._assignment, self._inputs
        spec = inputs.specs[assignment.run_id]
        self._gauges.begin(spec.factors)
        # To the log that the dashboard shows first.
        print(f"{spec.factors}: begins", file=sys.stderr, flush=True)
        placement = Placement(assignment.gpu_share, assignment.exclusive)
        result = inputs.run(self._worker, spec.run_id, placement, self._gauges.step)
        self._gauges.end(result.row)
        print(f"{spec.factors}: {outcome(result.row)}", file=sys.stderr, flush=True)
        return to_report(result)
