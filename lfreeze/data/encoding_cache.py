"""A cache of encoded texts on disk, keyed by a hash of their inputs: encoded once, read by every trial."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from itertools import accumulate, pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lfreeze.atomic import write_atomically
from lfreeze.data.encoding import EncodedSplit, EncodedTask, encode_task
from lfreeze.data.tasks import TaskData
from lfreeze.models.catalog import Checkpoint
from lfreeze.models.files import ModelError
from lfreeze.models.loading import classifies_last_position, load_tokenizer

_DIGEST = "sha256"
# A temporary file this old belongs to a process that was killed.
_LEFTOVER_SECONDS = 3600
# Increase it when the encoding of the same texts changes.
_VERSION = 2


def cache_folder() -> Path:
    """``LFREEZE_CACHE``, or ``lfreeze`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("LFREEZE_CACHE") or Path(base) / "lfreeze")


def encoded(data: TaskData, checkpoint: Checkpoint, max_length: int, pair_separator: str) -> EncodedTask:
    """The texts as a model's token ids, from the cache or encoded and added to it.

    Args:
        max_length, pair_separator: the recipe's values.

    Raises:
        ModelError: the tokenizer does not load, has no pad token, or produces no token for a text or ids
            beyond the model's embeddings.
    """
    pad_left = classifies_last_position(checkpoint)
    settings = f"{max_length} {pair_separator} {pad_left}"
    content = f"{_VERSION} {checkpoint.tokenizer_hash} {data.fingerprint} {settings}"
    path = cache_folder() / "encoded" / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.safetensors"
    try:
        task = _unpack(_read(path), pad_left)
    except (OSError, SafetensorError, KeyError, RuntimeError, ValueError):
        tokenizer = load_tokenizer(checkpoint)
        task = encode_task(data, tokenizer, max_length, pair_separator=pair_separator, pad_left=pad_left)
        tensors = _pack(task)
        _write(path, save(tensors, {_DIGEST: _digest(tensors)}))
    _require_tokens(task, data, checkpoint)
    _require_known_ids(task, checkpoint)
    return task


def _require_tokens(task: EncodedTask, data: TaskData, checkpoint: Checkpoint) -> None:
    for split, examples in ((task.train, data.train), (task.validation, data.validation)):
        for ids, example in zip(split.input_ids, examples, strict=True):
            if not ids:
                raise ModelError(
                    f"model {checkpoint.name}: its tokenizer produces no token for the example "
                    f"{example.example_id!r} of the task {data.task.name}"
                )


def _require_known_ids(task: EncodedTask, checkpoint: Checkpoint) -> None:
    size = checkpoint.config.get("vocab_size")
    largest = max(
        task.pad_token_id, *(max(row) for s in (task.train, task.validation) for row in s.input_ids)
    )
    if isinstance(size, int) and largest >= size:
        raise ModelError(
            f"model {checkpoint.name}: its tokenizer produces the token id {largest}, but its embeddings end at {size - 1}"
        )


def _pack(task: EncodedTask) -> dict[str, torch.Tensor]:
    tensors = {"pad": torch.tensor([task.pad_token_id])}
    for name, split in (("train", task.train), ("validation", task.validation)):
        tensors[f"{name}.ids"] = torch.tensor([i for row in split.input_ids for i in row], dtype=torch.int32)
        tensors[f"{name}.lengths"] = torch.tensor([len(row) for row in split.input_ids])
        tensors[f"{name}.labels"] = torch.tensor(split.labels)
        if split.token_types is not None:
            types = [i for row in split.token_types for i in row]
            tensors[f"{name}.types"] = torch.tensor(types, dtype=torch.uint8)
    return tensors


def _unpack(tensors: dict[str, torch.Tensor], pad_left: bool) -> EncodedTask:
    def rows(values: torch.Tensor, lengths: torch.Tensor) -> tuple[tuple[int, ...], ...]:
        numbers, ends = values.tolist(), accumulate(lengths.tolist(), initial=0)
        return tuple(tuple(numbers[start:end]) for start, end in pairwise(ends))

    def split(name: str) -> EncodedSplit:
        lengths, types = tensors[f"{name}.lengths"], tensors.get(f"{name}.types")
        return EncodedSplit(
            rows(tensors[f"{name}.ids"], lengths),
            tuple(tensors[f"{name}.labels"].tolist()),
            rows(types, lengths) if types is not None else None,
            pad_left,
        )

    return EncodedTask(split("train"), split("validation"), int(tensors["pad"].item()))


def _read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, which are those that were written.

    Raises:
        ValueError: the file has no digest, or another content's.
    """
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        digest = (file.metadata() or {}).get(_DIGEST)
    if digest != _digest(tensors):
        raise ValueError(f"{path} has been changed")
    return tensors


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _write(path: Path, content: bytes) -> None:
    """Keep the content; a cache folder that cannot be written stays empty, which costs time only."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(".*.tmp"):
            if time.time() - leftover.stat().st_mtime > _LEFTOVER_SECONDS:
                leftover.unlink(missing_ok=True)
        write_atomically(path, lambda file: file.write(content))
    except OSError:
        return
