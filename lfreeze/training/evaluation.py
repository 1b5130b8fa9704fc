"""The predictions of a classifier for a whole split, and the evaluations of one training run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch
from torch import nn

from lfreeze.data.encoding import EncodedSplit, EncodedTask
from lfreeze.recipe import Recipe
from lfreeze.training.batches import evaluation_batches
from lfreeze.training.forward import classification_logits
from lfreeze.training.meter import Meter
from lfreeze.training.prefix import Prefix
from lfreeze.training.record import Evaluation, Predictions


@torch.no_grad()
def evaluate(
    model: nn.Module,
    split: EncodedSplit,
    recipe: Recipe,
    pad_token_id: int,
    device: torch.device,
    prefix: Prefix | None = None,
) -> Predictions:
    """Logits and predictions for every example of a split.

    Args:
        prefix: reuses the frozen layers' output for the validation split; ``split`` must be that.
    """
    model.eval()
    if prefix is not None:
        prefix.fill("validation")
    logits: list[list[float]] = [[]] * len(split)
    for batch in evaluation_batches(split, pad_token_id, recipe):
        with prefix.reused("validation", batch) if prefix else contextlib.nullcontext():
            rows = classification_logits(model, batch.to(device), recipe).cpu().tolist()
        for index, row in zip(batch.indices, rows, strict=True):
            logits[index] = row
    predicted = [max(range(len(row)), key=row.__getitem__) for row in logits]
    return Predictions(list(split.labels), predicted, logits)


class Evaluations:
    """Evaluates one training run on its validation split: every so many steps if its recipe says so, and at its end.

    An evaluation during training changes neither the numbers of the steps after it nor what the meter counts: the
    modes of the modules, torch's random state and the peaks of memory are as before it.

    Args:
        started: when the training began, by ``time.perf_counter``.

    Attributes:
        done: one entry for each evaluation; empty if the recipe asks for none during training.
        seconds: the time that evaluations have taken so far.
    """

    def __init__(
        self,
        model: nn.Module,
        data: EncodedTask,
        recipe: Recipe,
        device: torch.device,
        meter: Meter,
        started: float,
    ):
        self._model, self._data, self._recipe, self._device = model, data, recipe, device
        self._meter, self._started = meter, started
        self.done: list[Evaluation] = []
        self.seconds = 0.0

    def due(self, step: int) -> bool:
        """Whether the model is evaluated after this step, which is not the last."""
        every = self._recipe.evaluate_every
        return bool(every) and step % every == 0 and step < self._recipe.steps

    def disturbs(self, step: int) -> bool:
        """Whether an evaluation has left caches cold for this step, so that its time does not count.

        With an evaluation after every step, all times count: there are no others.
        """
        return self._recipe.evaluate_every > 1 and self.due(step - 1)

    def during(self, step: int, prefix: Prefix | None) -> None:
        """Evaluate between two steps, and leave everything as it was."""
        self._meter.synchronize()
        trained = time.perf_counter() - self._started - self.seconds
        with self._meter.apart(), _restored(self._model, self._device):
            self._run(step, trained, prefix)

    def conclude(self, trained: float, prefix: Prefix | None) -> Predictions:
        """Evaluate after the last step.

        Args:
            trained: seconds of training, evaluations left out.
        """
        return self._run(self._recipe.steps, trained, prefix)

    def _run(self, step: int, trained: float, prefix: Prefix | None) -> Predictions:
        began = time.perf_counter()
        data = self._data
        predictions = evaluate(
            self._model, data.validation, self._recipe, data.pad_token_id, self._device, prefix
        )
        if self._recipe.evaluate_every:
            self.done.append(Evaluation(step, predictions.accuracy, _mean_loss(predictions), trained))
        self.seconds += time.perf_counter() - began
        return predictions


def _mean_loss(predictions: Predictions) -> float:
    logits = torch.tensor(predictions.logits, dtype=torch.float64)
    return float(nn.functional.cross_entropy(logits, torch.tensor(predictions.labels)))


@contextlib.contextmanager
def _restored(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Give the modules their modes back, and torch its random state."""
    modes = [(module, module.training) for module in model.modules()]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
    for module, training in modes:
        module.training = training
