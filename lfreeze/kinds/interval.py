"""INT: layers frozen at regular intervals (§3.1)."""

import math
from fractions import Fraction

from lfreeze.strategy import Kind, register


@register
class Interval(Kind):
    """Freezes every n-th layer, counted from 1: layers n, 2n, 3n, ... for a ratio of 1/n.

    Other ratios are spread as evenly: the k-th frozen layer is ceil(k / ratio).
    """

    label = "INT"
    order = 20
    paper_percents = ("25", "33", "50")

    def select(self, n_layers: int, ratio: Fraction, seed: int) -> tuple[int, ...]:
        return tuple(math.ceil(k / ratio) - 1 for k in range(1, math.floor(ratio * n_layers) + 1))
