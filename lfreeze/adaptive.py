"""Adaptive freezing: measure how much each layer changes in the first steps, then freeze (§3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from lfreeze.blocks import model_parts
from lfreeze.errors import StrategyError
from lfreeze.freezing import as_strategy, prepare, set_trainable, sync_optimizer
from lfreeze.plan import FreezeOptions, FreezePlan, parse_options
from lfreeze.strategy import Strategy


class AdaptiveSwitch:
    """Trains every layer for the probe steps, then freezes those with the smallest or largest change.

    The snapshot of the layers stays on the CPU, so that it uses no device memory.

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
        self._before = [[_to_cpu(p) for p in layer.parameters()] for layer in self._layers]
        self._steps = 0

    def step(self, optimizer: torch.optim.Optimizer) -> FreezePlan | None:
        """Count an optimiser step; after the last one of the probe, select and freeze layers.

        All gradients are dropped before freezing, so that none can move a frozen weight later.
        Parameters that continue to train keep their optimiser state.
        """
        self._steps += 1
        if self._steps != self._options.probe_steps:
            return None
        optimizer.zero_grad(set_to_none=True)
        changes = layer_changes(self._layers, self._before)
        if not any(changes):
            raise StrategyError(
                f"no weight of any layer has changed in {self._steps} steps, so {self._strategy.name} cannot "
                "select any: call step(optimizer) after each optimizer.step(), with a learning rate above 0"
            )
        self._before = []
        order = sorted(range(len(changes)), key=lambda i: changes[i], reverse=self._largest)
        frozen = tuple(sorted(order[: self._count]))
        plan = set_trainable(self._model, self._strategy, frozen, self._options)
        sync_optimizer(optimizer, self._model)
        return replace(plan, layer_changes=changes)

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """Each layer's parameters before the first step, by ``"<layer>.<place in the layer>"``."""
        return {
            f"{i}.{j}": tensor.contiguous()
            for i, layer in enumerate(self._before)
            for j, tensor in enumerate(layer)
        }

    def resume(self, tensors: Mapping[str, torch.Tensor], steps: int) -> None:
        """Continue an interrupted probe after ``steps`` steps, with the snapshot of its beginning."""
        self._before = [
            [tensors[f"{i}.{j}"] for j in range(len(layer))] for i, layer in enumerate(self._before)
        ]
        self._steps = steps


class AdaptiveFreezing:
    """Adaptive freezing for your own training loop::

        adaptive = AdaptiveFreezing(model, "ADT-L50")
        optimizer = torch.optim.AdamW(model.parameters())
        for batch in batches:
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            adaptive.step(optimizer)

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
        self._controller = strategy.implementation.controller(model, strategy, parsed)

    def step(self, optimizer: torch.optim.Optimizer) -> FreezePlan | None:
        """Call it after ``optimizer.step()``; it returns the new plan when it freezes layers, else None.

        Raises:
            StrategyError: the optimiser lacks trainable parameters, or no weight changed in the probe.
        """
        assert self._controller is not None
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise StrategyError(f"step expects the optimiser (torch.optim.Optimizer), not {optimizer!r}")
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if not held >= {id(p) for p in self._model.parameters() if p.requires_grad}:
            raise StrategyError(
                f"the optimiser lacks parameters that {self.plan.strategy} trains: "
                "create it after AdaptiveFreezing, from model.parameters()"
            )
        plan = self._controller.step(optimizer)
        self.plan = plan or self.plan
        return plan


def layer_changes(layers: tuple[nn.Module, ...], before: list[list[torch.Tensor]]) -> tuple[float, ...]:
    """The change of each layer: the L2 norm of each parameter tensor's change, averaged over the tensors (§3.2)."""
    changes = []
    for layer, olds in zip(layers, before, strict=True):
        norms = [
            torch.linalg.vector_norm(p.detach().float() - old.to(p.device).float())
            for p, old in zip(layer.parameters(), olds, strict=True)
        ]
        changes.append(torch.stack(norms).double().mean().item())
    return tuple(changes)


def _to_cpu(parameter: nn.Parameter) -> torch.Tensor:
    return parameter.detach().to("cpu", copy=True)
