"""Checks of a model on the meta device, which reads no weights and allocates no memory."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from lfreeze.models.catalog import Checkpoint
from lfreeze.models.checkpoint_check import parts_of
from lfreeze.models.loading import empty_classifier, load
from lfreeze.recipe import Recipe
from lfreeze.strategy import Strategy


def inspect_model(
    checkpoint: Checkpoint, n_labels: int, strategies: Iterable[Strategy], recipe: Recipe
) -> nn.Module:
    """Check that a model loads as a classifier and that the strategies fit it; the model on the meta device.

    Raises:
        ModelError: its architecture, its tensors or its layers cannot be used.
        StrategyError: a strategy freezes no layer of it or every layer, or needs something that the
            model or the environment lacks.
    """
    if checkpoint.folder is None:
        model = empty_classifier(checkpoint, n_labels, torch.float32, torch.device("meta"))
    else:
        model, _ = load(checkpoint, n_labels, torch.float32, device="meta")
    parts = parts_of(checkpoint.name, model)
    for strategy in strategies:
        strategy.frozen_count(len(parts.layers))
        strategy.implementation.check_model(checkpoint.name, parts.layers, recipe)
    return model
