"""Layers drawn anew during training, as LISA does (Pan et al. 2024, arXiv:2403.17919)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from lfreeze.blocks import model_parts
from lfreeze.freezing import set_trainable
from lfreeze.optimizers import ParameterLists, drop_frozen, evaluation_weights, require_held
from lfreeze.plan import FreezeOptions, FreezePlan
from lfreeze.seeding import stream_seed
from lfreeze.strategy import Strategy
from lfreeze.updates import Updates


class LayerRedraw:
    """Freezes drawn layers at once, and others after every ``redraw_steps`` updates.

    Each draw depends on the seed and its number alone, so that a resumed training continues with the same ones.
    Frozen layers keep the type of their weights, which would be rounded at every draw.

    Args:
        model: the model, with every layer that may train set to train.

    Attributes:
        plan: what trains now.

    Raises:
        StrategyError: the ratio freezes no layer of this model, or every layer.
    """

    def __init__(self, model: nn.Module, strategy: Strategy, options: FreezeOptions):
        self._model, self._strategy, self._options = model, strategy, replace(options, frozen_dtype=None)
        self._n_layers = len(model_parts(model, options.stack).layers)
        strategy.frozen_count(self._n_layers)
        self._trained = [p for p in model.parameters() if p.requires_grad]
        self._lists: ParameterLists | None = None
        self._updates = Updates(model, strategy)
        self.plan = self._draw(())

    @property
    def updates(self) -> int:
        """Steps so far that changed a weight."""
        return self._updates.count

    def step(self, *optimizers: torch.optim.Optimizer) -> FreezePlan | None:
        """Count the step if it changed a weight; after the last one with these layers, draw others.

        Optimisers list, from the first call on, what trains and nothing else. A layer that trains again starts
        with new optimiser state.

        Raises:
            StrategyError: no weight changes; an optimiser lacks parameters of a layer, cannot drop any, or has
                moved frozen ones; or training runs in several processes.
        """
        self._updates.require_unmoved(optimizers)
        counted = self._updates.take(optimizers)
        if self._lists is None:
            require_held(self._model, optimizers, self._strategy.name, later=self._trained)
            self._lists = ParameterLists(optimizers)
            drop_frozen(optimizers)
        if not counted or self.updates % self._options.redraw_steps:
            return None
        self._lists.restore()
        self.plan = self._draw(optimizers)
        return self.plan

    def _draw(self, optimizers: Sequence[torch.optim.Optimizer]) -> FreezePlan:
        number = self.updates // self._options.redraw_steps
        seed = stream_seed(self._options.seed, f"draw {number}")
        strategy = self._strategy
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        with evaluation_weights(optimizers):
            frozen = strategy.implementation.select(self._n_layers, strategy.ratio, seed)
            plan = set_trainable(self._model, strategy, frozen, self._options)
            drop_frozen(optimizers)
        self._updates.watch(self._model)
        return plan

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """None: a draw is known by its number."""
        return {}

    def resume(self, tensors: Mapping[str, torch.Tensor], updates: int) -> None:
        """Continue after a number of updates."""
        self._updates.resume(updates)
        self.plan = self._draw(())
