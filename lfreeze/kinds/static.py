"""ALL, INT, BOT and TOP: layers chosen before training, by position alone (§3.1)."""

import math
from fractions import Fraction

from lfreeze.strategy import Kind


class All(Kind):
    """Full fine-tuning: nothing is frozen."""

    label = "ALL"
    takes_ratio = False


class Interval(Kind):
    """Every n-th layer, counted from 1: layers n, 2n, 3n, ... for a ratio of 1/n.

    Other ratios spread their layers as evenly: the k-th frozen layer is ceil(k / ratio).
    """

    label = "INT"

    def select(self, n_layers: int, ratio: Fraction, seed: int) -> tuple[int, ...]:
        return tuple(math.ceil(k / ratio) - 1 for k in range(1, math.floor(ratio * n_layers) + 1))


class Bottom(Kind):
    """The layers nearest to the input, and with them the embeddings."""

    label = "BOT"
    freezes_embeddings = True

    def select(self, n_layers: int, ratio: Fraction, seed: int) -> tuple[int, ...]:
        return tuple(range(math.floor(ratio * n_layers)))


class Top(Kind):
    """The layers nearest to the output."""

    label = "TOP"

    def select(self, n_layers: int, ratio: Fraction, seed: int) -> tuple[int, ...]:
        return tuple(range(n_layers - math.floor(ratio * n_layers), n_layers))
