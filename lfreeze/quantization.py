"""Quantised layers: which modules have weights that no optimiser can train, and how many they stand for."""

from __future__ import annotations

import math

import torch
from torch import nn


def quantised_classes(model: nn.Module) -> list[str]:
    """The classes of quantised weights, or of the modules that hold them, sorted by name."""
    names = set()
    for module in model.modules():
        own = [p for p in module.parameters(recurse=False) if _is_quantised(p)]
        if own or _packed_in_buffers(module):
            names |= {type(p if _is_wrapper(p) else module).__name__ for p in own} or {type(module).__name__}
    return sorted(names)


def count_parameters(model: nn.Module) -> int:
    """A model's parameters; a quantised tensor counts as the one that it stands for."""
    packed = [m for m in model.modules() if _packed_in_buffers(m)]
    in_buffers = sum(
        _size(m, "in_features", "infeatures") * _size(m, "out_features", "outfeatures") for m in packed
    )
    return sum(map(_elements, model.parameters())) + in_buffers


def _is_quantised(tensor: torch.Tensor) -> bool:
    """Integers, eight-bit floats, or a tensor class that holds other tensors."""
    if not tensor.is_floating_point():
        return tensor.dim() > 1
    return tensor.element_size() == 1 or _is_wrapper(tensor)


def _is_wrapper(tensor: torch.Tensor) -> bool:
    # Sharded tensors are wrappers too; freezing refuses them with a reason of their own.
    return hasattr(type(tensor), "__tensor_flatten__") and not hasattr(tensor, "device_mesh")


def _packed_in_buffers(module: nn.Module) -> bool:
    """As GPTQ and AWQ store a linear map."""
    return any(name == "qweight" for name, _ in module.named_buffers(recurse=False))


def _elements(tensor: torch.Tensor) -> int:
    shape = getattr(getattr(tensor, "quant_state", None), "shape", None)
    return math.prod(shape) if shape is not None else tensor.numel()


def _size(module: nn.Module, *names: str) -> int:
    return next((int(getattr(module, name)) for name in names if hasattr(module, name)), 0)
