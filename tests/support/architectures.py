"""Tiny configurations of many architectures, and the roles of their parts, named by hand."""

from __future__ import annotations

from typing import Any

import transformers
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from lfreeze.models.minicpm import GraniteForSequenceClassification

LAYERS = 12
_COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "vocab_size": 99,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "num_labels": 3,
}
_SMALL_HEADS = {"head_dim": 8, "num_key_value_heads": 1}

# Configuration class, changes to the common sizes, and prefixes: embeddings, layers, final norm.
# What has none of these prefixes is the head.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any], tuple[str, ...], str, tuple[str, ...]]] = {
    "gemma": ("GemmaConfig", _SMALL_HEADS, ("model.embed_tokens",), "model.layers.", ("model.norm",)),
    "gemma2": ("Gemma2Config", _SMALL_HEADS, ("model.embed_tokens",), "model.layers.", ("model.norm",)),
    "gemma3": ("Gemma3TextConfig", _SMALL_HEADS, ("model.embed_tokens",), "model.layers.", ("model.norm",)),
    "phi": ("PhiConfig", {}, ("model.embed_tokens",), "model.layers.", ("model.final_layernorm",)),
    "phi3": ("Phi3Config", {}, ("model.embed_tokens",), "model.layers.", ("model.norm",)),
    "llama": ("LlamaConfig", {}, ("model.embed_tokens",), "model.layers.", ("model.norm",)),
    "qwen2": (
        "Qwen2Config",
        {"num_key_value_heads": 2},
        ("model.embed_tokens",),
        "model.layers.",
        ("model.norm",),
    ),
    "qwen3": ("Qwen3Config", _SMALL_HEADS, ("model.embed_tokens",), "model.layers.", ("model.norm",)),
    "mistral": (
        "MistralConfig",
        {"num_key_value_heads": 2},
        ("model.embed_tokens",),
        "model.layers.",
        ("model.norm",),
    ),
    "granite": ("GraniteConfig", {}, ("model.embed_tokens",), "model.layers.", ("model.norm",)),
    "gpt2": (
        "GPT2Config",
        {},
        ("transformer.wte", "transformer.wpe"),
        "transformer.h.",
        ("transformer.ln_f",),
    ),
    "gpt_neox": (
        "GPTNeoXConfig",
        {},
        ("gpt_neox.embed_in",),
        "gpt_neox.layers.",
        ("gpt_neox.final_layer_norm",),
    ),
    "opt": (
        "OPTConfig",
        {"ffn_dim": 48, "word_embed_proj_dim": 16},
        ("model.decoder.embed_tokens", "model.decoder.embed_positions", "model.decoder.project_in"),
        "model.decoder.layers.",
        ("model.decoder.final_layer_norm",),
    ),
    "falcon": ("FalconConfig", {}, ("transformer.word_embeddings",), "transformer.h.", ("transformer.ln_f",)),
    "bert": ("BertConfig", {}, ("bert.embeddings.",), "bert.encoder.layer.", ()),
    "roberta": ("RobertaConfig", {}, ("roberta.embeddings.",), "roberta.encoder.layer.", ()),
    "modernbert": (
        "ModernBertConfig",
        {"cls_token_id": 1, "sep_token_id": 2},
        ("model.embeddings.",),
        "model.layers.",
        ("model.final_norm",),
    ),
    "electra": (
        "ElectraConfig",
        {"embedding_size": 16},
        ("electra.embeddings.", "electra.embeddings_project"),
        "electra.encoder.layer.",
        (),
    ),
    "deberta": ("DebertaV2Config", {}, ("deberta.embeddings.",), "deberta.encoder.layer.", ()),
    "mixtral": (
        "MixtralConfig",
        {"num_key_value_heads": 2, "num_local_experts": 4},
        ("model.embed_tokens",),
        "model.layers.",
        ("model.norm",),
    ),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        {**_SMALL_HEADS, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
        ("model.embed_tokens",),
        "model.layers.",
        ("model.norm",),
    ),
}


def build(name: str) -> PreTrainedModel:
    """A model of the architecture with random weights, three labels and twelve layers."""
    config_class, changes, *_ = ARCHITECTURES[name]
    config = getattr(transformers, config_class)(**(_COMMON | changes))
    if name == "granite":
        return GraniteForSequenceClassification(config)
    return AutoModelForSequenceClassification.from_config(config)
