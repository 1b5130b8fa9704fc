"""BOT-LoRA: LoRA in the layers above BOT's alone."""

import math
from fractions import Fraction

from lfreeze.kinds.lora import LoRA
from lfreeze.strategy import register


@register
class BottomWithAdapters(LoRA):
    """Freezes the base model and trains adapters above the bottom layers, so that the backward pass stops there."""

    label = "BOT-LoRA"
    order = 75
    takes_ratio = True

    def select(self, n_layers: int, ratio: Fraction, seed: int) -> tuple[int, ...]:
        return tuple(range(math.floor(ratio * n_layers)))
