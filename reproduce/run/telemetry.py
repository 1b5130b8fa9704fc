"""The gauges of a sweep on Ray's metrics endpoint: each running trial, and the progress of the sweep.

Ray drops a gauge some 20 s after it was last set, so a finished trial's series end by themselves.
The dashboard and Prometheus add the prefix ``ray_``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from ray.util.metrics import Gauge

from lfreeze.strategy import Strategy
from lfreeze.training.record import Step
from reproduce.plan.spec import Factors, point_text
from reproduce.store.trial_row import TrialRow

TAGS = ("model", "task", "strategy", "ratio", "seed", "grid")
TRIAL_GAUGES = {
    "lfreeze_trial_step": "optimiser steps done",
    "lfreeze_trial_loss": "training loss of the latest step",
    "lfreeze_trial_step_seconds": "seconds of the latest step",
    "lfreeze_trial_memory_bytes": "bytes allocated on the GPU; once the trial has ended, its peak on any device",
    "lfreeze_trial_validation_accuracy": "accuracy on the validation split, from 0 to 1, once the trial has ended",
}
SWEEP_GAUGE = "lfreeze_sweep_trials"
STATES = ("total", "done", "failed", "skipped", "running")
_SECONDS = 1.0
_SWEEP_SECONDS = 4.0


class TrialGauges:
    """A worker's gauges, tagged with the factors of the trial that it runs."""

    def __init__(self) -> None:
        self._gauges = {name: Gauge(name, text, tag_keys=TAGS) for name, text in TRIAL_GAUGES.items()}
        self._tags: dict[str, str] = {}
        self._last = 0.0

    def begin(self, factors: Factors) -> None:
        strategy = Strategy.parse(factors.strategy)
        self._tags = {
            "model": factors.model,
            "task": factors.task,
            "strategy": factors.strategy,
            "ratio": "" if strategy.percent is None else f"{float(strategy.ratio):g}",
            "seed": str(factors.seed),
            "grid": point_text(factors.grid),
        }
        self._last = 0.0

    def step(self, step: Step) -> None:
        """Set the gauges at most once a second, so that monitoring costs nothing measurable."""
        if time.monotonic() - self._last < _SECONDS:
            return
        self._last = time.monotonic()
        import torch

        values = {"step": step.step, "loss": step.loss, "step_seconds": step.seconds}
        if torch.cuda.is_available():
            values["memory_bytes"] = torch.cuda.memory_allocated()
        self._set(values)

    def end(self, row: TrialRow) -> None:
        accuracy, peak = row.validation_accuracy, row.peak_allocated_bytes
        if row.status == "ok" and accuracy is not None and peak is not None:
            self._set({"validation_accuracy": accuracy, "memory_bytes": peak})

    def _set(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._gauges[f"lfreeze_trial_{name}"].set(float(value), tags=self._tags)


class SweepGauge:
    """The driver's number of trials, by state."""

    def __init__(self) -> None:
        self._gauge = Gauge(SWEEP_GAUGE, "trials of the sweep, by state", tag_keys=("state",))
        self._last = 0.0

    def show(self, counts: Mapping[str, int]) -> None:
        if time.monotonic() - self._last < _SWEEP_SECONDS:
            return
        self._last = time.monotonic()
        for state in STATES:
            self._gauge.set(counts[state], tags={"state": state})
