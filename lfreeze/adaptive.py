"""Adaptive freezing: measure how much each layer changes in the first steps, then freeze (§3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from lfreeze.blocks import model_parts
from lfreeze.errors import StrategyError
from lfreeze.freezing import as_strategy, prepare, set_trainable
from lfreeze.optimizers import ChangeDetector, drop_frozen, evaluation_weights, require_held
from lfreeze.plan import FreezeOptions, FreezePlan, parse_options
from lfreeze.strategy import Strategy
from lfreeze.updates import Updates


class AdaptiveSwitch:
    """Trains every layer for the probe steps, then freezes those with the smallest or largest change.

    The snapshot of the layers stays in main memory, so that it uses no device memory; on CUDA in pinned memory,
    which is copied several times as fast and which torch keeps for the next snapshot.

    Args:
        model: the model, with what trains during the probe already set.
        strategy: ADT-L or ADT-H with its ratio.
        largest: freeze the layers with the largest change instead of the smallest.

    Raises:
        StrategyError: the ratio freezes no layer of this model, or every layer.
    """

    def __init__(self, model: nn.Module, strategy: Strategy, options: FreezeOptions, *, largest: bool):
        self._model, self._strategy, self._options, self._largest = model, strategy, options, largest
        self._layers = model_parts(model, options.stack).layers
        self._count = strategy.frozen_count(len(self._layers))
        self._before = [[_copied_to_cpu(p) for p in layer.parameters()] for layer in self._layers]
        if any(p.is_cuda for p in model.parameters()):
            torch.cuda.synchronize()
        self._updates = Updates(model, strategy)

    @property
    def updates(self) -> int:
        """Steps so far that changed a weight."""
        return self._updates.count

    def step(self, *optimizers: torch.optim.Optimizer) -> FreezePlan | None:
        """Count the step if it changed a weight; after the last one of the probe, select and freeze layers.

        All gradients are dropped before freezing, so that none can move a frozen weight later.
        Parameters that continue to train keep their optimiser state.

        Raises:
            StrategyError: no weight changes, an optimiser cannot drop parameters or has moved frozen
                ones, or training runs in several processes.
        """
        self._updates.require_unmoved(optimizers)
        if self.updates >= self._options.probe_steps or not self._updates.take(optimizers):
            return None
        return self._switch(optimizers) if self.updates == self._options.probe_steps else None

    def _switch(self, optimizers: Sequence[torch.optim.Optimizer]) -> FreezePlan:
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        with evaluation_weights(optimizers):
            changes = layer_changes(self._layers, self._before)
            order = sorted(range(len(changes)), key=lambda i: changes[i], reverse=self._largest)
            frozen = tuple(sorted(order[: self._count]))
            plan = set_trainable(self._model, self._strategy, frozen, self._options)
            drop_frozen(optimizers)
        self._before = []
        self._updates.watch(self._model)
        return replace(plan, layer_changes=changes)

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """Each layer's parameters before the first step, by ``"<layer>.<place in the layer>"``."""
        return {
            f"{i}.{j}": tensor.contiguous()
            for i, layer in enumerate(self._before)
            for j, tensor in enumerate(layer)
        }

    def resume(self, tensors: Mapping[str, torch.Tensor], updates: int) -> None:
        """Continue an interrupted probe after a number of updates, with the snapshot of its beginning."""
        self._before = [
            [tensors[f"{i}.{j}"] for j in range(len(layer))] for i, layer in enumerate(self._before)
        ]
        self._updates.resume(updates)


class AdaptiveFreezing:
    """Freezing during training in a loop of your own: adaptive, or with layers that are drawn anew (LISA).

    ```python
    adaptive = AdaptiveFreezing(model, "ADT-L50")
    optimizer = torch.optim.AdamW(model.parameters())
    for batch in batches:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        adaptive.step(optimizer)
    ```

    Keyword arguments are those of ``FreezeOptions``. ``plan`` describes what trains now.

    Raises:
        StrategyError: the strategy is unknown, is not adaptive, or does not fit the model.
    """

    def __init__(self, model: nn.Module, strategy: str | Strategy, **options: object):
        if not isinstance(model, nn.Module):
            raise StrategyError(f"AdaptiveFreezing expects a model (torch.nn.Module), not {model!r}")
        strategy = as_strategy(strategy)
        parsed = parse_options(options)
        if not strategy.implementation.adaptive:
            raise StrategyError(
                f"strategy {strategy.name} is not adaptive: use freeze(model, {strategy.name!r})"
            )
        self._model = model
        self.plan = prepare(model, strategy, parsed)
        self._start = ChangeDetector(model)
        self._controller = strategy.implementation.controller(model, strategy, parsed)
        # What redraws has drawn its first layers.
        self.plan = getattr(self._controller, "plan", self.plan)

    def step(self, *optimizers: torch.optim.Optimizer) -> FreezePlan | None:
        """Call it after ``optimizer.step()``, with every optimiser that trains the model.

        It may be called after steps that change no weight, as under gradient accumulation; they do not
        count. It returns the new plan when it freezes layers, else None.

        Raises:
            StrategyError: the optimisers lack trainable parameters, keep one state for all parameters, or
                moved frozen weights; no weight changes; or training runs in several processes.
        """
        assert self._controller is not None
        for optimizer in optimizers or (None,):
            if not isinstance(optimizer, torch.optim.Optimizer):
                raise StrategyError(f"step expects the optimiser (torch.optim.Optimizer), not {optimizer!r}")
        require_held(self._model, optimizers, self.plan.strategy, self._start)
        plan = self._controller.step(*optimizers)
        self.plan = plan or self.plan
        return plan


def layer_changes(layers: tuple[nn.Module, ...], before: list[list[torch.Tensor]]) -> tuple[float, ...]:
    """The change of each layer: the L2 norm of each parameter tensor's change, averaged over the tensors (§3.2)."""
    changes = []
    for layer, olds in zip(layers, before, strict=True):
        norms = [
            torch.linalg.vector_norm(p.detach().float() - old.to(p.device, non_blocking=True).float())
            for p, old in zip(layer.parameters(), olds, strict=True)
        ]
        changes.append(torch.stack(norms).double().mean().item())
    return tuple(changes)


def _copied_to_cpu(parameter: nn.Parameter) -> torch.Tensor:
    """A copy that is complete once the device is synchronised."""
    tensor = parameter.detach()
    return torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda).copy_(tensor, non_blocking=True)
