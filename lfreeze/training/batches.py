"""The batches that a trial trains on and is evaluated on, in the layout that the recipe's ``padding`` names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lfreeze.data.buckets import micro_batches
from lfreeze.data.encoding import Batch, EncodedSplit, EncodedTask, collate, pack, training_order
from lfreeze.recipe import Recipe


def training_batches(data: EncodedTask, recipe: Recipe, seed: int) -> list[list[Batch]]:
    """The batches of all steps, in order, each as micro-batches; the same for every strategy with this seed."""
    size, most = recipe.batch_size, recipe.micro_batch_size
    order = training_order(len(data.train), recipe.steps * size, seed)
    batches = []
    for start in range(0, len(order), size):
        indices = order[start : start + size]
        if recipe.padding == "bucketed":
            lengths = [len(data.train.input_ids[index]) for index in indices]
            groups = [
                [indices[place] for place in places] for places in micro_batches(lengths, most_examples=most)
            ]
        else:
            groups = _chunks(indices, most or size)
        batches.append([_laid_out(data.train, group, data.pad_token_id, recipe) for group in groups])
    return batches


def evaluation_batches(split: EncodedSplit, pad_token_id: int, recipe: Recipe) -> Iterator[Batch]:
    """All examples in batches of similar length."""
    for indices in of_similar_length(split, recipe.eval_batch_size):
        yield _laid_out(split, indices, pad_token_id, recipe)


def of_similar_length(split: EncodedSplit, size: int) -> list[list[int]]:
    """The places of all examples, the shortest first, ``size`` at a time."""
    return _chunks(sorted(range(len(split)), key=lambda i: (len(split.input_ids[i]), i)), size)


def _chunks(indices: list[int], size: int) -> list[list[int]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _laid_out(split: EncodedSplit, indices: Sequence[int], pad_token_id: int, recipe: Recipe) -> Batch:
    if recipe.padding == "packed":
        return pack(split, indices)
    return collate(
        split, indices, pad_token_id, recipe.max_length if recipe.padding == "max_length" else None
    )
