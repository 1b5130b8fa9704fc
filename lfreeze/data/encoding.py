"""From texts to batches: single texts or pairs as token ids, padded tensors, a reproducible order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lfreeze.data.tasks import Example, TaskData


@dataclass(frozen=True)
class EncodedSplit:
    """Token ids and label index of each example, in the order of the split.

    Attributes:
        token_types: for each token, 0 in the first text and 1 in the second; None for a tokenizer
            that does not tell them apart.
        pad_left: whether batches are padded on the left, for models that classify by the last position.
    """

    input_ids: tuple[tuple[int, ...], ...]
    labels: tuple[int, ...]
    token_types: tuple[tuple[int, ...], ...] | None = None
    pad_left: bool = False

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
    """Tensors of shape (examples, length) and, for labels, (examples,).

    Attributes:
        indices: the examples' places in their split.
        lengths: tokens of each example, if all stand one after another in a single row of shape (1, tokens);
            None if each has a row of its own. A single row has no padding, so that its mask is not needed.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor
    token_types: torch.Tensor | None = None
    indices: tuple[int, ...] = ()
    lengths: tuple[int, ...] | None = None

    @property
    def tokens(self) -> int:
        """Number of tokens, padding included."""
        return self.input_ids.numel()

    def to(self, device: torch.device) -> Batch:
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for name, value in vars(self).items()
        }
        return Batch(**moved)


def encode_task(
    data: TaskData,
    tokenizer: Any,
    max_length: int,
    *,
    pair_separator: str = "auto",
    pad_left: bool = False,
) -> EncodedTask:
    """Encode each text or pair in at most ``max_length`` tokens; of a pair, the longer text is truncated first.

    Args:
        pair_separator: the recipe's value; see ``separator``.

    Raises:
        ValueError: the tokenizer has no pad token.
    """
    if tokenizer.pad_token_id is None:
        raise ValueError(f"the tokenizer {type(tokenizer).__name__} has no pad token, which batches need")

    between = separator(tokenizer, pair_separator)

    def split(rows: Sequence[Example]) -> EncodedSplit:
        encoded = tokenizer(
            [e.first for e in rows],
            [between + e.second for e in rows if e.second is not None] or None,
            truncation="longest_first",
            max_length=max_length,
            return_attention_mask=False,
        )
        ids, types = encoded["input_ids"], encoded.get("token_type_ids")
        return EncodedSplit(
            tuple(map(tuple, ids)),
            tuple(e.label for e in rows),
            tuple(map(tuple, types)) if types is not None and any(map(any, types)) else None,
            pad_left,
        )

    return EncodedTask(split(data.train), split(data.validation), tokenizer.pad_token_id)


def separator(tokenizer: Any, setting: str) -> str:
    """The text in front of the second text of a pair.

    Empty where the tokenizer itself puts tokens between the two texts. Otherwise different pairs would have
    equal token ids: ``"auto"`` gives a line break, or the end-of-text token where the tokenizer drops line
    breaks; ``"none"`` joins the texts.
    """

    def ids(*texts: str, special: bool = True) -> list[int]:
        encoded: list[int] = tokenizer(*texts, add_special_tokens=special)["input_ids"]
        return encoded

    first, second = "a", "b"
    joined, pair = ids(first, special=False) + ids(second, special=False), ids(first, second)
    together = any(pair[i : i + len(joined)] == joined for i in range(len(pair) - len(joined) + 1))
    if setting == "none" or not together:
        return ""
    candidates = ("\n", tokenizer.eos_token or "")
    return next((text for text in candidates if ids(first, text + second) != pair), "")


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
    """The examples at ``indices``, padded to ``length`` or to their longest."""
    rows = [split.input_ids[i] for i in indices]
    width = length or max(map(len, rows))

    def padded(values: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
        tensor = torch.full((len(rows), width), fill)
        for row, numbers in enumerate(values):
            start = width - len(numbers) if split.pad_left else 0
            tensor[row, start : start + len(numbers)] = torch.tensor(numbers)
        return tensor

    return Batch(
        input_ids=padded(rows, pad_token_id),
        attention_mask=padded([(1,) * len(row) for row in rows], 0),
        labels=torch.tensor([split.labels[i] for i in indices]),
        token_types=padded([split.token_types[i] for i in indices], 0) if split.token_types else None,
        indices=tuple(indices),
    )


def pack(split: EncodedSplit, indices: Sequence[int]) -> Batch:
    """The examples at ``indices`` one after another in a single row."""
    ids = torch.tensor([[token for i in indices for token in split.input_ids[i]]])
    return Batch(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        labels=torch.tensor([split.labels[i] for i in indices]),
        indices=tuple(indices),
        lengths=tuple(len(split.input_ids[i]) for i in indices),
    )
