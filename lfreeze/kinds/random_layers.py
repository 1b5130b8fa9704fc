"""RND: layers drawn by the trial's seed, the control for every choice of layers by position."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import TYPE_CHECKING

from lfreeze.cost import Cost, evenly_spread
from lfreeze.seeding import stream_seed
from lfreeze.strategy import Kind, Strategy, register

if TYPE_CHECKING:
    from lfreeze.recipe import Recipe
    from lfreeze.shape import Shape


@register
class RandomLayers(Kind):
    """Freezes layers that are drawn without replacement, as many as the other kinds freeze at that ratio."""

    label = "RND"
    order = 80

    def select(self, n_layers: int, ratio: Fraction, seed: int) -> tuple[int, ...]:
        chance = random.Random(stream_seed(seed, "frozen layers"))
        return tuple(chance.sample(range(n_layers), int(ratio * n_layers)))

    def cost(self, shape: Shape, strategy: Strategy, recipe: Recipe, *, n_labels: int, length: int) -> Cost:
        """As if the frozen layers were spread evenly; with trainable embeddings they cost the same anywhere."""
        count = strategy.frozen_count(shape.n_layers)
        spread = evenly_spread(count, shape.n_layers)
        return self.layers_cost(shape, spread, recipe, n_labels=n_labels, length=length)

    def peak_cost(
        self, shape: Shape, strategy: Strategy, recipe: Recipe, *, n_labels: int, length: int
    ) -> Cost:
        """The most expensive draw: the backward pass crosses every layer."""
        first = shape.n_layers - strategy.frozen_count(shape.n_layers)
        last_ones = range(first, shape.n_layers)
        return self.layers_cost(shape, last_ones, recipe, n_labels=n_labels, length=length)
