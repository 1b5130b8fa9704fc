"""ADT-L and ADT-H: layers chosen by how much they changed in the first steps (§3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lfreeze.strategy import Kind, Strategy

if TYPE_CHECKING:
    from torch import nn

    from lfreeze.plan import Controller, FreezeOptions, FreezePlan


class AdaptiveLow(Kind):
    """Freezes the layers with the smallest change."""

    label = "ADT-L"
    adaptive = True
    freezes_largest = False

    def prepare(self, model: nn.Module, strategy: Strategy, options: FreezeOptions) -> FreezePlan:
        from lfreeze.freezing import set_trainable

        return set_trainable(model, strategy, frozen_layers=(), options=options)

    def controller(self, model: nn.Module, strategy: Strategy, options: FreezeOptions) -> Controller:
        from lfreeze.adaptive import AdaptiveSwitch

        return AdaptiveSwitch(model, strategy, options, largest=self.freezes_largest)


class AdaptiveHigh(AdaptiveLow):
    """Freezes the layers with the largest change."""

    label = "ADT-H"
    freezes_largest = True
