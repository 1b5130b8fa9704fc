"""A model's sizes from its configuration: by formula where there is one, else counted in the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lfreeze.model_shape import ModelShape, Shape, has_formula


def model_shape(config: Mapping[str, Any], device: str = "cpu") -> Shape:
    """The sizes of a hub-format ``config.json``, for ``lfreeze.cost``.

    An architecture with a formula loads no torch; any other is built on the meta device.

    Args:
        device: type of the device that the model trains on.

    Raises:
        ShapeError: transformers has no classifier of the architecture, or a size is missing.
    """
    if has_formula(config):
        return ModelShape.from_config(config, device)
    from lfreeze.models.walk import WalkedShape

    return WalkedShape.from_config(config, device)
