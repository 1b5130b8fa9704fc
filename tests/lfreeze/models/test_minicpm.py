"""MiniCPM as Granite, against a reference written from the published equations alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import GraniteForCausalLM

from lfreeze.models.minicpm import GraniteForSequenceClassification, granite_config

BASE: dict[str, Any] = {
    "model_type": "minicpm",
    "auto_map": {"AutoModel": "modeling_minicpm.MiniCPMModel"},
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "vocab_size": 70,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "scale_emb": 12,
    "scale_depth": 1.4,
    "dim_model_base": 16,
    "initializer_range": 0.1,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}


def rms_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + BASE["rms_norm_eps"]) * weight


def rotate(x: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding on (heads, length, dim), halves rotated against each other."""
    _, length, dim = x.shape
    angle = torch.outer(torch.arange(length), BASE["rope_theta"] ** (-torch.arange(0, dim, 2) / dim))
    cos, sin = torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1)
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def reference(
    config: dict[str, Any], w: dict[str, torch.Tensor], ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Final hidden state and logits for one sequence, from MiniCPM's equations."""
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    dim, length = config["hidden_size"] // heads, len(ids)
    depth = config["scale_depth"] / math.sqrt(config["num_hidden_layers"])
    hidden = w["model.embed_tokens.weight"][ids] * config["scale_emb"]
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        x = rms_norm(hidden, w[p + "input_layernorm.weight"])

        def project(name: str, n: int, x: torch.Tensor = x, p: str = p) -> torch.Tensor:
            return (x @ w[f"{p}self_attn.{name}.weight"].T).view(length, n, dim).transpose(0, 1)

        q, k, v = (
            rotate(project("q_proj", heads)),
            rotate(project("k_proj", kv_heads)),
            project("v_proj", kv_heads),
        )
        k, v = (t.repeat_interleave(heads // kv_heads, 0) for t in (k, v))
        scores = (q @ k.transpose(1, 2) / math.sqrt(dim)).masked_fill(future, -math.inf)
        mixed = (scores.softmax(-1) @ v).transpose(0, 1).reshape(length, -1)
        hidden = hidden + mixed @ w[p + "self_attn.o_proj.weight"].T * depth
        x = rms_norm(hidden, w[p + "post_attention_layernorm.weight"])
        gated = F.silu(x @ w[p + "mlp.gate_proj.weight"].T) * (x @ w[p + "mlp.up_proj.weight"].T)
        hidden = hidden + gated @ w[p + "mlp.down_proj.weight"].T * depth
    hidden = rms_norm(hidden, w["model.norm.weight"])
    return hidden, hidden / (config["hidden_size"] / config["dim_model_base"]) @ w["lm_head.weight"].T


@pytest.mark.parametrize(
    "changes", [{}, {"num_key_value_heads": 2}, {"scale_depth": 2.0, "num_hidden_layers": 5}]
)
def test_granite_computes_minicpm(changes: dict[str, Any]) -> None:
    config = BASE | changes
    torch.manual_seed(0)
    model = GraniteForCausalLM(granite_config(config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    ids = torch.randint(1, 70, (11,))
    hidden, logits = reference(config, dict(model.named_parameters()), ids)
    with torch.no_grad():
        torch.testing.assert_close(model(ids[None]).logits[0], logits, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.model(ids[None]).last_hidden_state[0], hidden, atol=1e-5, rtol=1e-5)


def test_padding_on_either_side_gives_the_same_answer() -> None:
    torch.manual_seed(1)
    config = granite_config(BASE)
    config.num_labels = 3
    model = GraniteForSequenceClassification(config).eval()
    ids = torch.randint(1, 70, (1, 9))
    pad, kept, dropped = torch.zeros(1, 4, dtype=torch.long), torch.ones(1, 9), torch.zeros(1, 4)
    with torch.no_grad():
        alone = model(input_ids=ids).logits
        right = model(input_ids=torch.cat([ids, pad], 1), attention_mask=torch.cat([kept, dropped], 1)).logits
        left = model(input_ids=torch.cat([pad, ids], 1), attention_mask=torch.cat([dropped, kept], 1)).logits
    torch.testing.assert_close(right, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(left, alone, atol=1e-5, rtol=1e-5)
