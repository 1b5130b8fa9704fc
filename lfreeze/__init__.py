"""Selective layer freezing for transformer fine-tuning.

Names load on first use, so that importing a part that needs no torch does not import it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lfreeze.adaptive import AdaptiveFreezing
    from lfreeze.callback import FreezeCallback
    from lfreeze.errors import StrategyError
    from lfreeze.estimates import estimate
    from lfreeze.freezing import freeze
    from lfreeze.kinds.lora import merge_lora
    from lfreeze.plan import FreezePlan
    from lfreeze.recipe import Recipe
    from lfreeze.strategy import Strategy
    from lfreeze.training.bucketed import BucketedTraining
    from lfreeze.training.prefix_cache import PrefixCache

    PAPER_STRATEGIES: tuple[str, ...]

__all__ = [
    "PAPER_STRATEGIES",
    "AdaptiveFreezing",
    "BucketedTraining",
    "FreezeCallback",
    "FreezePlan",
    "PrefixCache",
    "Recipe",
    "Strategy",
    "StrategyError",
    "estimate",
    "freeze",
    "merge_lora",
]

_HOMES = {
    "AdaptiveFreezing": "adaptive",
    "BucketedTraining": "training.bucketed",
    "FreezeCallback": "callback",
    "FreezePlan": "plan",
    "estimate": "estimates",
    "freeze": "freezing",
    "merge_lora": "kinds.lora",
    "PrefixCache": "training.prefix_cache",
    "Recipe": "recipe",
    "Strategy": "strategy",
    "StrategyError": "errors",
}


def __getattr__(name: str) -> Any:
    if name == "PAPER_STRATEGIES":
        return importlib.import_module("lfreeze.strategy").paper_strategies()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"lfreeze.{_HOMES[name]}"), name)
