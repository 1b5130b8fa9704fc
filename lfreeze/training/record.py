"""The result of one fine-tuning run: its steps, predictions, times and memory."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field

from lfreeze.freeze_proof import ProofResult
from lfreeze.plan import FreezePlan
from lfreeze.training.meter import MemoryUse


class TrainingError(RuntimeError):
    """Training cannot continue; the message names the step and the reason."""


@dataclass(frozen=True)
class Step:
    """One optimiser step.

    Attributes:
        phase: ``"probe"`` before an adaptive selection, else ``"train"``.
        grad_norm: before clipping.
        timed: whether the step counts for the step time: it is neither warm-up nor profiled.
    """

    step: int
    phase: str
    loss: float
    learning_rate: float
    grad_norm: float
    seconds: float
    tokens: int
    timed: bool


@dataclass(frozen=True)
class Predictions:
    """Labels, predictions and logits (examples, labels) of the validation split, in its order."""

    labels: list[int]
    predictions: list[int]
    logits: list[list[float]]

    @property
    def accuracy(self) -> float:
        correct = sum(a == b for a, b in zip(self.labels, self.predictions, strict=True))
        return correct / len(self.labels)


@dataclass
class TrainingRecord:
    """All results of one fine-tuning run; times in seconds, memory in bytes.

    Attributes:
        largest_micro_batch: examples and tokens per example of the largest micro-batch whose memory was measured.
        prefix_layers: the frozen layers whose kept output training reused, at its end.
        prefix_seconds: the part of training and evaluation that computed such output.
    """

    plan: FreezePlan
    proof: ProofResult
    memory: MemoryUse
    probe_memory: MemoryUse | None
    static_bytes: int
    memory_method: str
    selection_seconds: float
    switch_step: int | None
    train_seconds: float
    eval_seconds: float
    predictions: Predictions
    largest_micro_batch: tuple[int, int]
    prefix_layers: int
    prefix_seconds: float
    steps: list[Step] = field(default_factory=list)

    def step_quartiles(self, phase: str = "train") -> tuple[float, float, float]:
        """First quartile, median and third quartile of the seconds per timed step of a phase."""
        seconds = sorted(s.seconds for s in self.steps if s.phase == phase and s.timed)
        if len(seconds) < 2:
            only = seconds[0] if seconds else math.nan
            return only, only, only
        low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
        return low, middle, high
