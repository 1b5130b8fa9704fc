"""The predictions of a classifier for a whole split."""

from __future__ import annotations

import contextlib

import torch
from torch import nn

from lfreeze.data.encoding import EncodedSplit
from lfreeze.recipe import Recipe
from lfreeze.training.batches import evaluation_batches
from lfreeze.training.forward import classification_logits
from lfreeze.training.prefix import Prefix
from lfreeze.training.record import Predictions


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
