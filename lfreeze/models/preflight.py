"""What would go wrong on the device, found on the meta device: no weight is read, no memory taken."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from lfreeze.errors import InputError
from lfreeze.models.catalog import Checkpoint
from lfreeze.models.checkpoint_check import parts_of
from lfreeze.models.loading import empty_classifier, load
from lfreeze.recipe import Recipe
from lfreeze.strategy import Strategy


def inspect_model(
    checkpoint: Checkpoint, n_labels: int, strategies: Iterable[Strategy], recipe: Recipe
) -> None:
    """See that a model loads as a classifier and that the strategies fit it.

    Raises:
        ModelError: its architecture, its tensors or its layers cannot be used.
        StrategyError: a strategy freezes no layer of it, or every layer.
        InputError: LoRA's targets are not among its linear maps.
    """
    if checkpoint.folder is None:
        model = empty_classifier(checkpoint, n_labels, torch.float32, torch.device("meta"))
    else:
        model, _ = load(checkpoint, n_labels, torch.float32, device="meta")
    parts = parts_of(checkpoint.name, model)
    for strategy in strategies:
        strategy.frozen_count(len(parts.layers))
        if strategy.kind == "LoRA":
            _require_targets(checkpoint.name, parts.layers, recipe.lora_targets)


def _require_targets(name: str, layers: Iterable[nn.Module], targets: Iterable[str]) -> None:
    found = {
        path.rsplit(".", 1)[-1]: None
        for layer in layers
        for path, module in layer.named_modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    }
    for target in targets:
        if target not in found:
            raise InputError(
                f"LoRA's target {target!r} is no linear map of the model {name}; it has {', '.join(found)}: "
                "choose with --set lora_targets=NAME,NAME"
            )
