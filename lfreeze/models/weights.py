"""Sources of a model's initial weights, tensor by tensor: a checkpoint's files, or random values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import nn

# Random matrices repeat a block of this many draws: their values do not matter, fast creation does.
_BLOCK = 1 << 20


class Weights(Protocol):
    """Restores single tensors to their initial values."""

    def restore(self, name: str, parameter: nn.Parameter) -> None:
        """Write the initial values of the parameter ``name`` into ``parameter``."""


class FileWeights:
    """Reads tensors from a checkpoint's files; those stored under other names are kept in memory.

    The files are memory-mapped, so that workers on one machine share their pages.
    """

    def __init__(self, files: Sequence[Path], model: nn.Module, fresh: Collection[str]):
        self._read: dict[str, Callable[[], torch.Tensor]] = {}
        for path in files:
            self._read |= tensor_readers(path)
        self._kept = {
            name: parameter.detach().to("cpu", copy=True)
            for name, parameter in model.named_parameters()
            if name not in fresh and name not in self._read
        }

    @torch.no_grad()
    def restore(self, name: str, parameter: nn.Parameter) -> None:
        stored = self._kept[name] if name in self._kept else self._read[name]()
        # Moved as stored and converted on the device: a file's bfloat16 has half the bytes, and one thread
        # of a CPU converts slowly.
        parameter.copy_(stored.to(parameter.device))


class RandomWeights:
    """Matrices of normal values, the same on every device; vectors as the architecture initialises them."""

    def __init__(self, model: nn.Module, deviation: float):
        self._deviation = deviation
        self._vectors = {
            name: parameter.detach().to("cpu", copy=True)
            for name, parameter in model.named_parameters()
            if parameter.dim() < 2
        }

    @torch.no_grad()
    def restore(self, name: str, parameter: nn.Parameter) -> None:
        if name in self._vectors:
            parameter.copy_(self._vectors[name])
            return
        generator = torch.Generator().manual_seed(sum(name.encode()))
        flat = parameter.view(-1)
        block = torch.randn(min(_BLOCK, flat.numel()), generator=generator) * self._deviation
        block = block.to(parameter.device, parameter.dtype)
        for start in range(0, flat.numel(), _BLOCK):
            part = flat[start : start + _BLOCK]
            part.copy_(block[: part.numel()])


def tensor_readers(path: Path) -> dict[str, Callable[[], torch.Tensor]]:
    """By name, what reads each tensor of a file."""
    if path.suffix == ".safetensors":
        file: Any = safe_open(path, framework="pt")
        names: list[str] = file.keys()
        return {name: lambda name=name: file.get_tensor(name) for name in names}  # type: ignore[misc]
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:
        # Files from before PyTorch 1.6 cannot be mapped.
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    return {name: lambda value=value: value for name, value in tensors.items()}  # type: ignore[misc]
