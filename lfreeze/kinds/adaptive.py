"""ADT-L and ADT-H: layers selected by how much they changed in the first steps (§3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lfreeze.cost import Cost, evenly_spread
from lfreeze.strategy import Kind, Strategy, register

if TYPE_CHECKING:
    from torch import nn

    from lfreeze.plan import Controller, FreezeOptions, FreezePlan
    from lfreeze.recipe import Recipe
    from lfreeze.shape import Shape


@register
class AdaptiveLow(Kind):
    """Freezes the layers with the smallest change."""

    label = "ADT-L"
    order = 50
    paper_percents = ("25", "50", "75")
    adaptive = True
    freezes_largest = False

    def prepare(self, model: nn.Module, strategy: Strategy, options: FreezeOptions) -> FreezePlan:
        from lfreeze.freezing import set_trainable

        return set_trainable(model, strategy, frozen_layers=(), options=options)

    def controller(self, model: nn.Module, strategy: Strategy, options: FreezeOptions) -> Controller:
        from lfreeze.adaptive import AdaptiveSwitch

        return AdaptiveSwitch(model, strategy, options, largest=self.freezes_largest)

    def cost(self, shape: Shape, strategy: Strategy, recipe: Recipe, *, n_labels: int, length: int) -> Cost:
        """The phase after the selection, as if the frozen layers were spread evenly.

        Which layers will be frozen is not known before training; with trainable embeddings they cost
        the same wherever they are.
        """
        count = strategy.frozen_count(shape.n_layers)
        spread = evenly_spread(count, shape.n_layers)
        return self.layers_cost(shape, spread, recipe, n_labels=n_labels, length=length)

    def peak_cost(
        self, shape: Shape, strategy: Strategy, recipe: Recipe, *, n_labels: int, length: int
    ) -> Cost:
        """The probe's cost: it trains every layer."""
        return self.layers_cost(shape, (), recipe, n_labels=n_labels, length=length)


@register
class AdaptiveHigh(AdaptiveLow):
    """Freezes the layers with the largest change."""

    label = "ADT-H"
    order = 60
    paper_percents = ("25", "50", "75")
    freezes_largest = True
