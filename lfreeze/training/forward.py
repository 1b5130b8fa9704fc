"""A classifier's forward pass on a batch, in the recipe's precision: logits and loss."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from lfreeze.data.encoding import Batch
from lfreeze.recipe import Recipe
from lfreeze.training.packing import packed_logits


def classification_logits(model: nn.Module, batch: Batch, recipe: Recipe) -> torch.Tensor:
    """Logits of shape (examples, labels) in float32, computed in the recipe's precision."""
    with computed_in(recipe, batch.input_ids.device):
        if batch.lengths is not None:
            return packed_logits(model, batch).float()
        logits: torch.Tensor = model(**model_inputs(model, batch)).logits
    return logits.float()


@contextlib.contextmanager
def computed_in(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Autocast as the recipe's precision says."""
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16-mixed"):
        yield


def model_inputs(model: Any, batch: Batch) -> dict[str, torch.Tensor]:
    """A batch of padded rows as arguments of the model, with token types if it tells two texts of a pair apart."""
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    types = getattr(model.config, "type_vocab_size", None)
    if (
        batch.token_types is not None
        and "token_type_ids" in inspect.signature(model.forward).parameters
        and (types is None or types >= 2)
    ):
        inputs["token_type_ids"] = batch.token_types
    return inputs


def classification_loss(model: nn.Module, batch: Batch, recipe: Recipe) -> torch.Tensor:
    """Mean cross-entropy of a batch."""
    return F.cross_entropy(classification_logits(model, batch, recipe), batch.labels)
