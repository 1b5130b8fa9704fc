"""The batches that a trial trains on."""

from __future__ import annotations

from lfreeze.data.buckets import micro_batches
from lfreeze.data.encoding import Batch, EncodedTask, collate, training_order
from lfreeze.recipe import Recipe


def training_batches(data: EncodedTask, recipe: Recipe, seed: int) -> list[list[Batch]]:
    """The batches of all steps, in order, each as micro-batches; the same for every strategy with this seed."""
    size = recipe.batch_size
    order = training_order(len(data.train), recipe.steps * size, seed)
    width = recipe.max_length if recipe.padding == "max_length" else None
    batches = []
    for start in range(0, len(order), size):
        indices = order[start : start + size]
        groups = [indices]
        if recipe.padding == "bucketed":
            lengths = [len(data.train.input_ids[index]) for index in indices]
            groups = [[indices[place] for place in places] for places in micro_batches(lengths)]
        batches.append([collate(data.train, group, data.pad_token_id, width) for group in groups])
    return batches
