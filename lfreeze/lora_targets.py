"""Which linear maps LoRA adapts, where nobody has chosen."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection

from lfreeze.errors import StrategyError

# The paper's models have both (docs/decisions.md); for one of them, Phi-2, peft's table names two more.
_USUAL = ("q_proj", "v_proj")


def require_peft(purpose: str = "") -> None:
    """Check that peft is installed.

    Args:
        purpose: what it is needed for, unless it is for training.

    Raises:
        StrategyError: it is not.
    """
    if importlib.util.find_spec("peft") is None:
        needs = f"the package peft {purpose}".rstrip()
        raise StrategyError(
            f"strategy LoRA needs {needs}, which is not installed: pip install 'lfreeze[lora]'"
        )


def lora_targets(chosen: Collection[str], linears: Collection[str], model_type: str) -> tuple[str, ...]:
    """The names of the linear maps that get an adapter: the chosen ones, or else the architecture's own.

    Those are ``q_proj`` and ``v_proj`` if the layers have both, or else the ones of peft's table. Without a
    row in that table, it is ``q_proj`` and ``v_proj`` again, for an error that names what is missing.

    Args:
        chosen: names; empty leaves the choice to the architecture.
        linears: the names of the layers' linear maps.
        model_type: transformers' name of the architecture.

    Raises:
        StrategyError: the choice needs peft's table, and peft is not installed.
    """
    if chosen:
        return tuple(chosen)
    if set(_USUAL) <= set(linears):
        return _USUAL
    require_peft(f"for its table of the targets in {model_type}; or choose them with lora_targets")
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as TABLE

    listed = TABLE.get(model_type)
    # Some rows are a regular expression over paths.
    return tuple(listed) if isinstance(listed, list) else _USUAL
