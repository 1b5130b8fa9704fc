"""BOT: the layers nearest to the input frozen, and the embeddings with them (§3.1)."""

import math
from fractions import Fraction

from lfreeze.strategy import Kind, register


@register
class Bottom(Kind):
    """Freezes the layers nearest to the input and the embeddings, so that backward stops above them."""

    label = "BOT"
    order = 30
    paper_percents = ("25", "50", "75")
    freezes_embeddings = True

    def select(self, n_layers: int, ratio: Fraction, seed: int) -> tuple[int, ...]:
        return tuple(range(math.floor(ratio * n_layers)))
