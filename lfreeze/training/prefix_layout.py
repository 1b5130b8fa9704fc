"""Where the examples of a batch stand in their rows, as attention masks tell."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lfreeze.dry_run import tensors_in
from lfreeze.errors import StrategyError


@dataclass(frozen=True)
class Layout:
    """Where the examples of a batch stand in their rows.

    Attributes:
        names: by row, the example's key and the padding in front of it, on which its positions may depend.
        lengths: by row, its number of tokens.
        width: the length of the rows.
    """

    names: tuple[tuple[Hashable, int], ...]
    lengths: tuple[int, ...]
    width: int

    @classmethod
    def of(cls, keys: Sequence[Hashable], inputs: Mapping[str, Any]) -> Layout:
        """The layout of the arguments of a forward pass.

        Raises:
            StrategyError: the keys are not one comparable value for each example, the mask has another shape
                than (examples, length), or the tensors have no values.
        """
        if any(isinstance(key, torch.Tensor) or not isinstance(key, Hashable) for key in keys):
            raise StrategyError(
                "keys must be values that can be compared, such as numbers: use tolist() of a tensor"
            )
        if any(tensor.is_meta for tensor in tensors_in(inputs)):
            raise StrategyError("the batch is on the meta device, where nothing is computed")
        mask = inputs.get("attention_mask")
        if mask is not None and (not isinstance(mask, torch.Tensor) or mask.dim() != 2):
            shape = tuple(mask.shape) if isinstance(mask, torch.Tensor) else type(mask).__name__
            raise StrategyError(f"attention_mask must have the shape (examples, length), not {shape}")
        if mask is None:
            width = next(t.shape[1] for t in tensors_in(inputs) if t.dim() > 1)
            fronts, lengths = [0] * len(keys), [width] * len(keys)
        else:
            width = mask.shape[1]
            used = mask.bool().int()
            fronts = used.argmax(1).tolist()
            ends = (width - used.flip(1).argmax(1)).tolist()
            lengths = [end - front for end, front in zip(ends, fronts, strict=True)]
        if len(keys) != len(lengths):
            raise StrategyError(f"{len(keys)} keys are given for a batch of {len(lengths)} examples")
        return cls(tuple(zip(keys, fronts, strict=True)), tuple(lengths), width)

    def places(self, row: int) -> slice:
        """Where the example of a row stands in it."""
        front = self.names[row][1]
        return slice(front, front + self.lengths[row])
