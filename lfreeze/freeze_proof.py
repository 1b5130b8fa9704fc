"""The freeze proof: frozen tensors did not change, trainable ones got gradients, and nothing else trained.

Computed in every trial from the tensors themselves, not from the plan.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from lfreeze.blocks import model_parts
from lfreeze.dry_run import tensors_in

# Small enough for the products of a chunk to stay in a processor's cache.
_CHUNK = 1 << 18
# A GPU has no use for so small a chunk: each costs four kernel launches.
_CHUNKS_ON_CUDA = 64
_INTEGER_OF_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class ProofResult:
    """What was observed; ``holds`` is whether it proves that the freezing worked.

    Attributes:
        frozen_unchanged: every frozen tensor has the same bits as when it was frozen.
        every_trainable_got_gradient: every trainable tensor had a gradient in some step.
        optimiser_holds_trainable: the optimiser's parameters are exactly the trainable ones.
        backward_depth: layers whose output received a gradient since what trains last changed.
    """

    frozen_unchanged: bool
    every_trainable_got_gradient: bool
    optimiser_holds_trainable: bool
    backward_depth: int

    @property
    def holds(self) -> bool:
        return self.frozen_unchanged and self.every_trainable_got_gradient and self.optimiser_holds_trainable


class FreezeProof:
    """Observes one training run.

    Call ``begin`` when what trains is set or changes, or ``renew`` to keep what was observed until then,
    ``observe_depth`` before a step to observe its backward depth, ``after_backward`` before each optimiser step,
    and ``conclude`` at the end.

    Args:
        stack: the path of the layers, as in ``FreezeOptions``.
    """

    def __init__(self, model: nn.Module, stack: str | None = None):
        self._model, self._stack = model, stack
        self._earlier: list[ProofResult] = []
        self.begin()

    def begin(self) -> None:
        """Start observing what trains and what does not now."""
        self._frozen = {
            name: (p, fingerprint(p)) for name, p in self._model.named_parameters() if not p.requires_grad
        }
        self._waiting = {id(p): p for p in self._model.parameters() if p.requires_grad}
        self._crossed: set[int] = set()
        self._observed = False

    def renew(self, optimizer: torch.optim.Optimizer) -> None:
        """What trains has changed, in the model and the optimiser: conclude what was until now, and begin again."""
        self._earlier = [self.conclude(optimizer)]
        self.begin()

    def observe_depth(self) -> list[torch.utils.hooks.RemovableHandle]:
        """Observe the next backward pass, unless one was observed since ``begin``; remove the hooks after it."""
        if self._observed:
            return []
        self._observed = True
        layers = model_parts(self._model, self._stack).layers
        return [layer.register_forward_hook(self._watch(index)) for index, layer in enumerate(layers)]

    def after_backward(self) -> None:
        """Note which trainable tensors have a gradient; call it before the optimiser's step."""
        if self._waiting:
            self._waiting = {key: p for key, p in self._waiting.items() if p.grad is None}

    def conclude(self, optimizer: torch.optim.Optimizer) -> ProofResult:
        """Compare the tensors and the optimiser's parameters with what was noted, since the first ``renew`` at all times."""
        held = [id(p) for group in optimizer.param_groups for p in group["params"]]
        trains = {id(p) for p in self._model.parameters() if p.requires_grad}
        has_state = {id(p) for p in optimizer.state}
        holds_trainable = set(held) == trains and len(held) == len(trains) and has_state <= trains
        earlier = self._earlier
        return ProofResult(
            frozen_unchanged=all(fingerprint(p) == before for p, before in self._frozen.values())
            and all(result.frozen_unchanged for result in earlier),
            every_trainable_got_gradient=not self._waiting
            and all(result.every_trainable_got_gradient for result in earlier),
            optimiser_holds_trainable=holds_trainable
            and all(result.optimiser_holds_trainable for result in earlier),
            backward_depth=len(self._crossed),
        )

    def _watch(self, index: int) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            for tensor in tensors_in(output):
                if tensor.requires_grad:
                    tensor.register_hook(lambda grad: self._crossed.add(index))

        return hook


@torch.no_grad()
def fingerprint(tensor: torch.Tensor, chunks_at_once: int | None = None) -> int:
    """A 64-bit hash of a tensor's bits and their order, computed on the tensor's device.

    Each element's bits are multiplied by an odd number derived from its position in its chunk, each
    chunk's sum by one derived from the chunk's position, and all are summed modulo 2**64; changed,
    swapped or shifted elements change the sum.

    Args:
        chunks_at_once: does not change the hash; None chooses by device.
    """
    flat = tensor.detach().contiguous().view(-1)
    if not flat.numel():
        return 0
    bits = flat.view(_INTEGER_OF_SIZE[flat.element_size()])
    multipliers = _multipliers(_CHUNK, bits.device)
    whole = bits.numel() // _CHUNK * _CHUNK
    rows = bits[:whole].view(-1, _CHUNK)
    at_once = chunks_at_once or (_CHUNKS_ON_CUDA if bits.is_cuda else 1)
    sums = [(part.long() * multipliers).sum(1) for part in rows.split(at_once)] if whole else []
    if whole < bits.numel():
        rest = bits[whole:]
        sums.append((rest.long() * multipliers[: rest.numel()]).sum().view(1))
    joined = torch.cat(sums)
    total = int((joined * _multipliers(len(joined), bits.device)).sum())
    return (total + bits.numel()) % (1 << 64)


@functools.lru_cache(maxsize=16)
def _multipliers(count: int, device: torch.device) -> torch.Tensor:
    """Odd 64-bit numbers that no short pattern of changes can cancel (splitmix64's steps)."""
    mixed = (torch.arange(count, device=device) + 1) * -7046029254386353131
    mixed = (mixed ^ (mixed >> 30)) * -4658895280553007687
    mixed = (mixed ^ (mixed >> 27)) * -7723592293110705685
    return (mixed ^ (mixed >> 31)) | 1
