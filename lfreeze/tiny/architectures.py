"""Tiny versions of the three architectures: 8 layers, hidden size 64, about half a million parameters.

The sizes are this project's; everything else (activations, scalings, dropouts, norms, rotary fractions,
tied or grouped heads) follows the paper's models, except that all three tie input and output embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from lfreeze.models.minicpm import granite_config
from lfreeze.tiny.tokenizer import BOS_ID, EOS_ID, PAD_ID

MAX_POSITIONS = 512
_COMMON: Mapping[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "max_position_embeddings": MAX_POSITIONS,
    "pad_token_id": PAD_ID,
    "bos_token_id": BOS_ID,
    "eos_token_id": EOS_ID,
    "tie_word_embeddings": True,
    "attention_dropout": 0.0,
    "dtype": "float32",
}
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "tiny-gemma": {
        **_COMMON,
        "model_type": "gemma",
        "architectures": ["GemmaForCausalLM"],
        "intermediate_size": 232,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "initializer_range": 0.02,
        "attention_bias": False,
    },
    "tiny-phi": {
        **_COMMON,
        "model_type": "phi",
        "architectures": ["PhiForCausalLM"],
        "intermediate_size": 256,
        "num_key_value_heads": 4,
        "hidden_act": "gelu_new",
        "layer_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "partial_rotary_factor": 0.5,
        "qk_layernorm": False,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.1,
        "initializer_range": 0.02,
    },
    "tiny-minicpm": {
        **_COMMON,
        "model_type": "minicpm",
        "architectures": ["MiniCPMForCausalLM"],
        "intermediate_size": 160,
        "num_key_value_heads": 4,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "scale_emb": 12,
        "scale_depth": 1.4,
        "dim_model_base": 16,
        "initializer_range": 0.1,
        "attention_bias": False,
    },
}
TINY_MODELS = tuple(CONFIGS)


def stored_config(name: str, vocabulary_size: int) -> dict[str, Any]:
    """The ``config.json`` of a tiny model."""
    return {**CONFIGS[name], "vocab_size": vocabulary_size}


def causal_lm(config: Mapping[str, Any]) -> nn.Module:
    """A language model with random weights, made from the content of a ``config.json``."""
    from transformers import (
        GemmaConfig,
        GemmaForCausalLM,
        GraniteForCausalLM,
        PhiConfig,
        PhiForCausalLM,
    )

    if config["model_type"] == "minicpm":
        minicpm: nn.Module = GraniteForCausalLM(granite_config(config))
        return minicpm
    config_class, model_class = {
        "gemma": (GemmaConfig, GemmaForCausalLM),
        "phi": (PhiConfig, PhiForCausalLM),
    }[config["model_type"]]
    model: nn.Module = model_class(config_class(**{k: v for k, v in config.items() if k != "model_type"}))
    return model
