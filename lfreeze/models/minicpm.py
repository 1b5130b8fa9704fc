"""MiniCPM as a native architecture of transformers, so that no remote code runs.

MiniCPM is Llama plus three scalings, and Granite has all three. Tensor names agree, so a MiniCPM
checkpoint loads into Granite unchanged; only its configuration is translated. Only data is read from
the checkpoint's configuration, never the code that ``auto_map`` refers to.
"""

import math
from collections.abc import Mapping
from typing import Any

from transformers import GraniteConfig
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.models.granite.modeling_granite import GranitePreTrainedModel

# Fields with the same meaning in both configurations.
_SHARED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "attention_bias",
    "attention_dropout",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "tie_word_embeddings",
)
# MiniCPM's defaults for fields that a checkpoint's configuration may omit.
_DEFAULTS = {"scale_emb": 1.0, "scale_depth": 1.0, "rope_theta": 10_000.0}


class GraniteForSequenceClassification(GenericForSequenceClassification, GranitePreTrainedModel):
    """Granite with a linear head on the last non-pad token."""


def granite_config(minicpm: Mapping[str, Any]) -> GraniteConfig:
    """Translate a MiniCPM ``config.json`` into an equivalent Granite configuration.

    The residual branch is scaled by ``scale_depth / sqrt(layers)``, the embeddings by
    ``scale_emb``, and causal LM logits divided by ``hidden_size / dim_model_base``.

    Raises:
        KeyError: a size that defines the architecture is missing.
    """
    hidden, layers = minicpm["hidden_size"], minicpm["num_hidden_layers"]
    heads = minicpm["num_attention_heads"]
    rope: dict[str, Any] = {"rope_type": "default", **(minicpm.get("rope_scaling") or {})}
    if "type" in rope:
        rope["rope_type"] = rope.pop("type")
    rope["rope_theta"] = minicpm.get("rope_theta", _DEFAULTS["rope_theta"])
    return GraniteConfig(
        **{name: minicpm[name] for name in _SHARED if name in minicpm},
        rope_parameters=rope,
        embedding_multiplier=minicpm.get("scale_emb", _DEFAULTS["scale_emb"]),
        residual_multiplier=minicpm.get("scale_depth", _DEFAULTS["scale_depth"]) / math.sqrt(layers),
        attention_multiplier=1 / math.sqrt(hidden // heads),
        logits_scaling=hidden / minicpm.get("dim_model_base", hidden),
    )
