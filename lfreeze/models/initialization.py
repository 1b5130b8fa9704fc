"""New parameters as their architecture initialises them, the same on every device."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import nn


def deviation(model: Any) -> float:
    """The standard deviation with which a model's architecture draws matrices."""
    return float(getattr(model.config, "initializer_range", 0.02))


@torch.no_grad()
def draw_as_architecture(model: Any, parameters: Sequence[nn.Parameter], seed: int) -> None:
    """Draw parameters as the transformers library initialises a new model of this architecture.

    They are drawn on the CPU in float32, in the order of the modules, so that every device gets the
    same values.

    Args:
        model: a ``PreTrainedModel``; its other parameters keep their values.
    """
    from transformers import initialization

    chosen = {id(p) for p in parameters}
    homes = [(p, p.device, p.dtype) for p in parameters]
    for parameter in model.parameters():
        # transformers does not initialise parameters with this mark.
        parameter._is_hf_initialized = id(parameter) not in chosen
    for parameter in parameters:
        parameter.data = torch.full(parameter.shape, torch.nan)
    with torch.random.fork_rng(devices=[]):
        # What an architecture does not initialise keeps the values that its modules start with.
        torch.manual_seed(seed)
        for module in model.modules():
            own = {id(p) for p in module.parameters(recurse=False)}
            if own and own <= chosen and hasattr(module, "reset_parameters"):
                module.reset_parameters()
        torch.manual_seed(seed)
        with initialization.guard_torch_init_functions():
            _initialise(model, model, chosen)
        for parameter, device, dtype in homes:
            if parameter.isnan().any():
                parameter.data = torch.zeros(parameter.shape)
                if parameter.dim() > 1:
                    parameter.normal_(0.0, deviation(model))
            parameter.data = parameter.data.to(device, dtype)


def _initialise(module: nn.Module, owner: Any, chosen: Collection[int]) -> None:
    """Initialise the modules with chosen parameters, the inner ones first, as the model that owns them does."""
    from transformers import PreTrainedModel

    for child in module.children():
        if any(id(p) in chosen for p in child.parameters()):
            _initialise(child, child if isinstance(child, PreTrainedModel) else owner, chosen)
    owner._init_weights(module)
