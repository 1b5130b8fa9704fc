"""The result of one fine-tuning run: its steps, predictions, times and memory."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from lfreeze import metrics
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

    @property
    def macro_f1(self) -> float:
        return metrics.macro_f1(self.labels, self.predictions)

    @property
    def matthews_correlation(self) -> float:
        return metrics.matthews_correlation(self.labels, self.predictions)


@dataclass(frozen=True)
class Evaluation:
    """The model on the validation split after an optimiser step.

    Attributes:
        loss: mean cross-entropy of the examples, in nats.
        seconds: of training up to this step, evaluations left out.
    """

    step: int
    accuracy: float
    loss: float
    seconds: float


@dataclass
class TrainingRecord:
    """All results of one fine-tuning run; times in seconds, memory in bytes.

    Attributes:
        redraws: how often other layers were drawn.
        largest_micro_batch: examples and tokens per example of the largest micro-batch whose memory was measured.
        prefix_layers: the frozen layers whose kept output training reused, at its end.
        prefix_seconds: the part of training and evaluation that computed such output.
        evaluations: those during training and the last, at its end; empty unless the recipe asks for them.
    """

    plan: FreezePlan
    proof: ProofResult
    memory: MemoryUse
    probe_memory: MemoryUse | None
    static_bytes: int
    memory_method: str
    selection_seconds: float
    switch_step: int | None
    redraws: int
    train_seconds: float
    eval_seconds: float
    predictions: Predictions
    largest_micro_batch: tuple[int, int]
    prefix_layers: int
    prefix_seconds: float
    steps: list[Step] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)

    def step_quartiles(self, phase: str = "train") -> tuple[float, float, float] | tuple[None, None, None]:
        """First quartile, median and third quartile of the seconds per timed step of a phase; None without one."""
        seconds = sorted(s.seconds for s in self.steps if s.phase == phase and s.timed)
        if not seconds:
            return None, None, None
        if len(seconds) == 1:
            return seconds[0], seconds[0], seconds[0]
        low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
        return low, middle, high
