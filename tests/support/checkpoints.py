"""Small random checkpoints in the hub's own file layout, made on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

MINICPM: dict[str, Any] = {
    "architectures": ["MiniCPMForCausalLM"],
    "auto_map": {
        "AutoConfig": "configuration_minicpm.MiniCPMConfig",
        "AutoModel": "modeling_minicpm.MiniCPMModel",
        "AutoModelForCausalLM": "modeling_minicpm.MiniCPMForCausalLM",
    },
    "model_type": "minicpm",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "vocab_size": 300,
    "rms_norm_eps": 1e-5,
    "scale_emb": 12,
    "scale_depth": 1.4,
    "dim_model_base": 16,
    "initializer_range": 0.1,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
}
# What runs if anything runs the checkpoint's code.
REMOTE_CODE = "raise SystemExit('code from a checkpoint was run')\n"


def tokenizer_files(*, pad: bool = True, eos: bool = True) -> dict[str, bytes]:
    """A byte-level tokenizer with fewer than 300 tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<unk>", "<s>", "</s>", *(["<pad>"] if pad else [])]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        ["a man sleeps"],
        trainers.BpeTrainer(
            vocab_size=290, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "unk_token": "<unk>",
    }
    config |= {"pad_token": "<pad>"} if pad else {}
    config |= {"eos_token": "</s>"} if eos else {}
    return {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(config).encode(),
    }


def write_minicpm(
    folder: Path, dtype: torch.dtype = torch.float32, **changes: Any
) -> dict[str, torch.Tensor]:
    """A MiniCPM checkpoint with its remote code in the same folder; the tensors as stored."""
    config = MINICPM | changes
    hidden, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    head = hidden // config["num_attention_heads"]
    narrow = config["num_key_value_heads"] * head
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    for i in range(layers):
        p = f"model.layers.{i}."
        shapes |= {f"{p}self_attn.{n}_proj.weight": (hidden, hidden) for n in "qo"}
        shapes |= {f"{p}self_attn.{n}_proj.weight": (narrow, hidden) for n in "kv"}
        shapes |= {f"{p}mlp.{n}_proj.weight": (inner, hidden) for n in ("gate", "up")}
        shapes[f"{p}mlp.down_proj.weight"] = (hidden, inner)
        shapes |= {f"{p}{n}_layernorm.weight": (hidden,) for n in ("input", "post_attention")}
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: (torch.randn(shape, generator=generator) * 0.1 + (1.0 if len(shape) == 1 else 0.0)).to(dtype)
        for name, shape in shapes.items()
    }
    write(folder, config, tensors, tokenizer_files())
    for module in ("configuration_minicpm.py", "modeling_minicpm.py"):
        (folder / module).write_text(REMOTE_CODE)
    return tensors


def write(
    folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor], tokenizer: dict[str, bytes]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for name, content in tokenizer.items():
        (folder / name).write_bytes(content)


def write_causal(
    folder: Path, kind: str = "llama", *, pad: bool = True, shards: str | None = None, **changes: Any
) -> None:
    """A causal language model of a common architecture, as ``save_pretrained`` writes it."""
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "vocab_size": 300,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": None,
    }
    config_class, model_class = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "gemma": (GemmaConfig, GemmaForCausalLM),
        "phi": (PhiConfig, PhiForCausalLM),
    }[kind]
    if kind == "gemma":
        sizes |= {"num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0}
    sizes |= changes
    torch.manual_seed(0)
    model_class(config_class(**sizes)).save_pretrained(
        folder, **({"max_shard_size": shards} if shards else {})
    )
    for name, content in tokenizer_files(pad=pad).items():
        (folder / name).write_bytes(content)


def write_short(folder: Path, positions: int = 16) -> None:
    """An encoder with a short table of learned positions."""
    config = BertConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        max_position_embeddings=positions,
    )
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(folder)
    for name, content in tokenizer_files().items():
        (folder / name).write_bytes(content)
