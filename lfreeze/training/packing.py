"""Several examples in one row without padding: attention within each example, a pooled vector at each one's end."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from lfreeze.data.encoding import Batch
from lfreeze.models.files import ModelError

ATTENTION = "lfreeze_packed"


def require_packable(name: str, model: Any) -> None:
    """Check that a sequence classifier can read several examples in one row; it may be on the meta device.

    Raises:
        ModelError: it does not take positions, has no linear head ``score`` on one token, or has attention
            that is not causal or caps its scores.
    """
    takes = inspect.signature(model.base_model.forward).parameters
    config = model.config.get_text_config()
    reason = None
    if not isinstance(getattr(model, "score", None), nn.Linear) or model.base_model is model:
        reason = "it has no linear head on its last token"
    elif "position_ids" not in takes or not model.base_model._supports_attention_backend:
        reason = "it takes no positions, or has attention of its own"
    elif not all(
        getattr(module, "is_causal", True) for module in model.modules() if hasattr(module, "layer_idx")
    ):
        reason = "its attention is not causal"
    elif getattr(config, "attn_logit_softcapping", None):
        reason = "its attention caps scores"
    if reason is not None:
        raise ModelError(
            f"model {name}: padding = 'packed' does not fit {type(model).__name__}, since {reason}; "
            "choose longest, max_length or bucketed"
        )


def packed_logits(model: Any, batch: Batch) -> torch.Tensor:
    """Logits of shape (examples, labels) of a batch in a single row."""
    from transformers import AttentionInterface

    assert batch.lengths is not None
    AttentionInterface.register(ATTENTION, _attention)
    device = batch.input_ids.device
    starts = torch.tensor([0, *accumulate(batch.lengths)], dtype=torch.int32).to(device, non_blocking=True)
    positions = torch.cat([torch.arange(length) for length in batch.lengths])
    before = model.config._attn_implementation
    model.set_attn_implementation(ATTENTION)
    try:
        output = model.base_model(
            input_ids=batch.input_ids,
            position_ids=positions[None].to(device, non_blocking=True),
            use_cache=False,
            packed_lengths=batch.lengths,
            packed_starts=starts,
        )
    finally:
        model.set_attn_implementation(before)
    # As in transformers, the last token that is not the pad token, which may be the end-of-text token too.
    content = torch.arange(len(positions), device=device) * (batch.input_ids[0] != model.config.pad_token_id)
    last = content.cummax(0).values[starts[1:] - 1].maximum(starts[:-1])
    logits: torch.Tensor = model.score(output.last_hidden_state[0, last])
    return logits


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packed_lengths: Sequence[int],
    packed_starts: torch.Tensor,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each example, as transformers calls it.

    Args:
        query, key, value: of shape (1, heads, tokens, width); keys and values may have fewer heads.
        packed_lengths, packed_starts: each example's number of tokens, and where each starts and the last ends.

    Returns:
        A tensor of shape (1, tokens, heads, width).
    """
    grouped = query.shape[1] != key.shape[1]
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and not dropout:
        from torch.nn.attention.varlen import varlen_attn

        longest = max(packed_lengths)
        output: Any = varlen_attn(
            query.squeeze(0).transpose(0, 1),
            key.squeeze(0).transpose(0, 1),
            value.squeeze(0).transpose(0, 1),
            packed_starts,
            packed_starts,
            longest,
            longest,
            scale=scaling,
            window_size=((sliding_window or 0) - 1, 0),
            enable_gqa=grouped,
        )
        return output.unsqueeze(0), None
    outputs = []
    parts = [part.split(list(packed_lengths), dim=2) for part in (query, key, value)]
    for length, of_query, of_key, of_value in zip(packed_lengths, *parts, strict=True):
        mask = None
        if sliding_window is not None and length > sliding_window:
            ones = torch.ones(length, length, dtype=torch.bool, device=query.device)
            mask = ones.tril().triu(1 - sliding_window)
        outputs.append(
            F.scaled_dot_product_attention(
                of_query,
                of_key,
                of_value,
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=mask is None,
                scale=scaling,
                enable_gqa=grouped,
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2), None
