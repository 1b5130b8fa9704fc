"""Checks of a model on the meta device, which reads no weights and allocates no memory."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from lfreeze.errors import InputError, first_line
from lfreeze.models.catalog import Checkpoint
from lfreeze.models.checkpoint_check import parts_of
from lfreeze.models.files import ModelError
from lfreeze.models.loading import empty_model, load
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
    model = _on_meta(checkpoint, n_labels)
    parts = parts_of(checkpoint.name, model)
    for strategy in strategies:
        strategy.frozen_count(len(parts.layers))
        strategy.implementation.check_model(checkpoint.name, model, parts.layers, recipe)
    return model


def _on_meta(checkpoint: Checkpoint, n_labels: int) -> nn.Module:
    try:
        if checkpoint.folder is None:
            return empty_model(checkpoint, n_labels, torch.float32, torch.device("meta"))
        return load(checkpoint, n_labels, torch.float32, device="meta")[0]
    except InputError:
        raise
    # Values of a configuration that no architecture expects raise many types of errors.
    except Exception as error:
        reason = first_line(error, with_type=True)
        raise ModelError(f"model {checkpoint.name}: it cannot be built: {reason}") from error
