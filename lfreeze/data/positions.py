"""Whether a model has a position for every token of its texts.

A learned table of positions ends, and some architectures leave its first rows unused. Names and sizes in
configurations do not tell how many tokens fit, so the model runs on the longest text as far as the end of
its first layer: on zeros that take no memory, without computing any matrix product.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from lfreeze.data.encoding import EncodedTask
from lfreeze.hf_logging import silence_transformers
from lfreeze.models.checkpoint_check import parts_of
from lfreeze.models.files import ModelError
from lfreeze.recipe import Recipe

_PRODUCTS = {"linear", "matmul", "__matmul__", "mm", "bmm", "addmm", "baddbmm", "einsum", "_grouped_mm"}


def require_positions(name: str, model: nn.Module, task: EncodedTask, recipe: Recipe) -> None:
    """Check that the longest text, padded as the recipe says, fits a model's positions.

    Args:
        model: a classifier on the meta device.

    Raises:
        ModelError: it does not fit; the message says how many tokens do.
    """
    first_layer = parts_of(name, model).layers[0]
    ids = max((row for split in (task.train, task.validation) for row in split.input_ids), key=len)
    width = recipe.max_length if recipe.padding == "max_length" else len(ids)

    def fits(length: int) -> bool:
        padding = max(0, min(length, width) - len(ids))
        return _runs(model, first_layer, [*ids[:length], *[task.pad_token_id] * padding], padding)

    # A model that does not run on one token either fails for another reason.
    if fits(width) or not fits(1):
        return
    shortest, longest = 1, width
    while longest - shortest > 1:
        middle = (shortest + longest) // 2
        shortest, longest = (middle, longest) if fits(middle) else (shortest, middle)
    texts = f"have up to {width} tokens" if width == len(ids) else f"are padded to {width} tokens"
    raise ModelError(
        f"model {name}: its texts {texts}, but it has positions for {shortest}: "
        f"set max_length to at most {shortest}"
    )


class _ReachedError(Exception):
    """The first layer has ended."""


class _WithoutProducts(TorchFunctionMode):
    """Matrix products are zeros of the right shape."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") not in _PRODUCTS:
            return func(*args, **kwargs)
        on_meta = torch.utils._pytree.tree_map_only(torch.Tensor, lambda t: t.to("meta"), (args, kwargs))
        result = func(*on_meta[0], **on_meta[1])
        return torch.zeros(result.shape, dtype=result.dtype)


def _runs(model: nn.Module, first_layer: nn.Module, ids: Sequence[int], padding: int) -> bool:
    """Whether a model reaches the end of its first layer on a text whose last tokens are padding."""
    tensors = {
        name: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    input_ids = torch.tensor([list(ids)])
    mask = torch.ones_like(input_ids)
    mask[:, len(ids) - padding :] = 0
    arguments = {"input_ids": input_ids, "attention_mask": mask}

    def stop(*_: Any) -> None:
        raise _ReachedError

    handle = first_layer.register_forward_hook(stop)
    try:
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
            silence_transformers(),
            _WithoutProducts(),
            contextlib.suppress(_ReachedError),
        ):
            torch.func.functional_call(model, tensors, (), arguments)
    # Each architecture fails in its own way where its positions end.
    except Exception:
        return False
    finally:
        handle.remove()
    return True
