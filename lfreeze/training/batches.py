"""The batches that a trial trains on."""

from __future__ import annotations

from lfreeze.data.buckets import micro_batches
from lfreeze.data.encoding import Batch, EncodedTask, collate, training_order
from lfreeze.recipe import Recipe


def training_batches(data: EncodedTask, recipe: Recipe, seed: int) -> list[list[Batch]]:
    """The batches of all steps, in order, each as micro-batches; the same for every strategy with this seed."""
    size, lengths = recipe.batch_size, list(map(len, data.train.input_ids))
    order = training_order(len(data.train), recipe.steps * size, seed)
    width = recipe.max_length if recipe.padding == "max_length" else None
    batches = []
    for start in range(0, len(order), size):
        indices = order[start : start + size]
        groups = [list(range(len(indices)))]
        if recipe.padding == "bucketed":
            groups = micro_batches([lengths[index] for index in indices])
        chosen = [[indices[place] for place in group] for group in groups]
        batches.append([collate(data.train, group, data.pad_token_id, width) for group in chosen])
    return batches
