"""EDGE: the outermost layers frozen, alternately from the input and from the output."""

import math
from fractions import Fraction

from lfreeze.strategy import Kind


class Edge(Kind):
    """Freezes layers 0, n-1, 1, n-2, ... of n, so that the middle trains."""

    label = "EDGE"
    order = 35

    def select(self, n_layers: int, ratio: Fraction, seed: int) -> tuple[int, ...]:
        alternating = [layer for i in range(n_layers) for layer in (i, n_layers - 1 - i)]
        return tuple(sorted(alternating[: math.floor(ratio * n_layers)]))
