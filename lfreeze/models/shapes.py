"""A model's sizes from its configuration: by formula where there is one, else counted in the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lfreeze.model_shape import ModelShape, has_formula
from lfreeze.shape import Shape


def model_shape(config: Mapping[str, Any], device: str = "cpu", *, causal_lm: bool = False) -> Shape:
    """The sizes of a hub-format ``config.json``, for ``lfreeze.cost``.

    A classifier of an architecture with a formula loads no torch; any other model is built on the meta device.

    Args:
        device: type of the device that the model trains on.
        causal_lm: a causal language model instead of a sequence classifier.

    Raises:
        ShapeError: transformers has no such model of the architecture, or a size is missing.
    """
    if has_formula(config) and not causal_lm:
        return ModelShape.from_config(config, device)
    from lfreeze.models.walk import WalkedShape

    return WalkedShape.from_config(config, device, causal_lm=causal_lm)
