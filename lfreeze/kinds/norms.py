"""NORM: the norms' parameters and the head trained."""

from lfreeze.kinds.biases import Biases
from lfreeze.strategy import register


@register
class Norms(Biases):
    """Freezes every parameter but those of the norms, weights and biases, and the head."""

    label = "NORM"
    order = 95
    vectors = "norms"
