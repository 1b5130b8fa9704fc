"""From texts to batches: sentence pairs as token ids, right-padded tensors, a reproducible order."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lfreeze.data.tasks import Example, TaskData


@dataclass(frozen=True)
class EncodedSplit:
    """Token ids and label index of each example, in the order of the split."""

    input_ids: tuple[tuple[int, ...], ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class EncodedTask:
    """The encoded splits of a task."""

    train: EncodedSplit
    validation: EncodedSplit
    pad_token_id: int


@dataclass(frozen=True)
class Batch:
    """Tensors of shape (examples, length) and, for labels, (examples,)."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor

    @property
    def tokens(self) -> int:
        """Number of tokens, padding included."""
        return self.input_ids.numel()

    def to(self, device: torch.device) -> Batch:
        return Batch(*(t.to(device, non_blocking=True) for t in vars(self).values()))


def encode_task(data: TaskData, tokenizer: Any, max_length: int) -> EncodedTask:
    """Encode each example as a sentence pair of at most ``max_length`` tokens; the longer text is truncated first.

    Raises:
        ValueError: the tokenizer has no pad token.
    """
    if tokenizer.pad_token_id is None:
        raise ValueError(f"the tokenizer {type(tokenizer).__name__} has no pad token, which batches need")

    def split(rows: Sequence[Example]) -> EncodedSplit:
        pairs = tokenizer(
            [e.first for e in rows],
            [e.second for e in rows],
            truncation="longest_first",
            max_length=max_length,
            return_attention_mask=False,
        )
        return EncodedSplit(tuple(map(tuple, pairs["input_ids"])), tuple(e.label for e in rows))

    return EncodedTask(split(data.train), split(data.validation), tokenizer.pad_token_id)


def training_order(n_examples: int, n_draws: int, seed: int) -> list[int]:
    """Indices of ``n_draws`` training examples: shuffled again for each epoch; batches may span two epochs."""
    shuffler, order = random.Random(seed), list[int]()
    while len(order) < n_draws:
        epoch = list(range(n_examples))
        shuffler.shuffle(epoch)
        order += epoch
    return order[:n_draws]


def collate(
    split: EncodedSplit, indices: Sequence[int], pad_token_id: int, length: int | None = None
) -> Batch:
    """The examples at ``indices``, padded on the right to ``length`` or to their longest."""
    rows = [split.input_ids[i] for i in indices]
    width = length or max(map(len, rows))
    input_ids = torch.full((len(rows), width), pad_token_id)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for row, ids in enumerate(rows):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = 1
    return Batch(input_ids, mask, torch.tensor([split.labels[i] for i in indices]))


def evaluation_batches(
    split: EncodedSplit, batch_size: int, pad_token_id: int, length: int | None = None
) -> Iterator[tuple[list[int], Batch]]:
    """All examples in batches of similar length, each with the indices of its examples."""
    by_length = sorted(range(len(split)), key=lambda i: (len(split.input_ids[i]), i))
    for start in range(0, len(by_length), batch_size):
        indices = by_length[start : start + batch_size]
        yield indices, collate(split, indices, pad_token_id, length)
