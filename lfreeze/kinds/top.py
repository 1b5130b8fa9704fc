"""TOP: the layers nearest to the output frozen (§3.1)."""

import math
from fractions import Fraction

from lfreeze.strategy import Kind, register


@register
class Top(Kind):
    """Freezes the layers nearest to the output."""

    label = "TOP"
    order = 40
    paper_percents = ("25", "50", "75")

    def select(self, n_layers: int, ratio: Fraction, seed: int) -> tuple[int, ...]:
        return tuple(range(n_layers - math.floor(ratio * n_layers), n_layers))
