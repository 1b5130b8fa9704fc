"""LISA: layers drawn anew every few steps, after Pan et al. 2024 (arXiv:2403.17919)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lfreeze.kinds.random_layers import RandomLayers
from lfreeze.strategy import Strategy, register

if TYPE_CHECKING:
    from torch import nn

    from lfreeze.plan import Controller, FreezeOptions, FreezePlan
    from lfreeze.recipe import Recipe
    from lfreeze.shape import Shape


@register
class RedrawnLayers(RandomLayers):
    """Freezes the ratio of the layers at any time, others after every ``redraw_steps`` updates.

    The embeddings, the final norm and the head train throughout, as in that paper. ``frozen_dtype`` does not
    apply: it would round a layer's weights before the layer trains again.
    """

    label = "LISA"
    order = 85
    adaptive = True
    redraws = True

    def prepare(self, model: nn.Module, strategy: Strategy, options: FreezeOptions) -> FreezePlan:
        """Train every layer, so that an optimiser that is created now holds all of them."""
        from lfreeze.freezing import set_trainable

        return set_trainable(model, strategy, frozen_layers=(), options=options)

    def controller(self, model: nn.Module, strategy: Strategy, options: FreezeOptions) -> Controller:
        from lfreeze.redraw import LayerRedraw

        return LayerRedraw(model, strategy, options)

    def cost_options(self, shape: Shape, recipe: Recipe) -> dict[str, Any]:
        return {"frozen_dtype": "same"}
