"""Micro-batches of similar length in ``transformers.Trainer``: little padding is computed, the gradients stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from lfreeze.data.buckets import LAUNCH_TOKENS, micro_batches


class BucketedTraining:
    """Mix-in for ``transformers.Trainer`` that trains each batch as micro-batches of similar length.

    ``class BucketedTrainer(BucketedTraining, Trainer): pass``. The loss and the gradients of a batch are those
    of the whole batch up to rounding; dropout masks differ, since they are drawn for each micro-batch. Batches
    without an ``attention_mask`` of ones and zeros, and those that are not worth splitting, are trained whole.

    Attributes:
        launch_tokens: what a further micro-batch costs, in tokens; see ``lfreeze.data.buckets``.
    """

    launch_tokens = LAUNCH_TOKENS
    _share = 1.0
    _sums: bool | None = None

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        losses = []
        for part, share in split_batch(inputs, self.launch_tokens):
            self._share = share
            try:
                losses.append(super().training_step(model, part, num_items_in_batch))  # type: ignore[misc]
            finally:
                self._share = 1.0
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        share = self._share
        if share < 1.0 and num_items_in_batch is not None:
            if self._sums is None:
                self._sums = self._is_a_sum(model, inputs, num_items_in_batch)
            share = 1.0 if self._sums else share
        computed = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]
        if share == 1.0:
            return computed
        return (computed[0] * share, *computed[1:]) if return_outputs else computed * share

    @torch.no_grad()
    def _is_a_sum(self, model: nn.Module, inputs: dict[str, Any], items: Any) -> bool:
        """Whether the loss is a sum over the number of items, so that parts of a batch add up by themselves.

        Models that accept the number may still ignore it and return their mean, as transformers' sequence
        classifiers do: only the loss tells.
        """
        training = model.training
        model.eval()
        loss: Any = super().compute_loss  # type: ignore[misc]
        once, twice = (float(loss(model, dict(inputs), False, n)) for n in (items, 2 * items))
        model.train(training)
        return twice < 0.75 * once


def split_batch(
    inputs: Mapping[str, Any], launch_tokens: int = LAUNCH_TOKENS
) -> list[tuple[dict[str, Any], float]]:
    """A batch's micro-batches, each cut to its longest example, with its share of the examples.

    Args:
        inputs: tensors of shape (examples, ...); those of shape (examples, length, ...) are cut along the
            second dimension, on the side on which ``attention_mask`` (examples, length) is padded.
    """
    whole = [(dict(inputs), 1.0)]
    mask = inputs.get("attention_mask")
    if not isinstance(mask, torch.Tensor) or mask.dim() != 2:
        return whole
    examples, width = mask.shape
    places = torch.arange(width, device=mask.device)
    counts = mask.sum(1, keepdim=True)
    right = bool((mask == (places < counts)).all())
    if not right and not bool((mask == (places >= width - counts)).all()):
        return whole
    lengths = counts[:, 0].int().tolist()
    groups = micro_batches(lengths, launch_tokens)
    if len(groups) == 1:
        return whole
    parts = []
    for group in groups:
        longest = max(lengths[place] for place in group)
        cut = slice(0, longest) if right else slice(width - longest, width)
        rows = torch.tensor(group, device=mask.device)
        part = {name: _chosen(value, rows, cut, examples, width) for name, value in inputs.items()}
        parts.append((part, len(group) / examples))
    return parts


def _chosen(value: Any, rows: torch.Tensor, cut: slice, examples: int, width: int) -> Any:
    if not isinstance(value, torch.Tensor) or not value.dim() or value.shape[0] != examples:
        return value
    chosen = value[rows.to(value.device)]
    return chosen[:, cut] if value.dim() > 1 and value.shape[1] == width else chosen
