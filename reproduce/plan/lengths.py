"""How long a space's texts are in tokens, and what their batches compute."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lfreeze.data.buckets import micro_batches
from lfreeze.data.loading import load_task, task_availability
from lfreeze.data.tasks import Task
from lfreeze.models.attempt import attempt_tokenizer
from lfreeze.models.catalog import ModelCard, find_checkpoint, model_availability
from lfreeze.models.files import ModelError
from lfreeze.recipe import Recipe
from reproduce.plan.inputs import all_texts
from reproduce.plan.search_space import SearchSpace

# Tokens of a pair of texts, by model and task, where both are at hand.
KnownLengths = Mapping[tuple[str, str], tuple[int, ...]]

_SHARES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
# Quantiles of the tokens of a training text, or of a pair, at the shares above.
# - tiny tasks: all examples, with the tokenizer of the tiny models;
# - rte, cb: Gemma's tokenizer on RTE's 2,490 training examples and on 120 of CB's (Phi-2's differs by 2 %);
# - qnli, wnli, mnli: log-normal, its mean the bytes for each example in GLUE's dataset card times RTE's 0.205
#   tokens for each byte, its spread such that batches of 32 padded to their longest compute 2.0 and 2.2 tokens
#   for each real one, as measured with WordPiece; MNLI's spread is assumed to be WNLI's;
# - sst2, mrpc, qqp, cola: log-normal, with means as above and spreads that are assumed (0.6, 0.3, 0.4, 0.45).
_QUANTILES: dict[str, tuple[int, ...]] = {
    "rte": (11, 27, 32, 41, 55, 84, 135, 158, 200, 294),
    "qnli": (13, 26, 30, 37, 47, 60, 74, 85, 108, 171),
    "wnli": (7, 16, 18, 24, 32, 42, 54, 63, 84, 108),
    "mnli": (8, 18, 20, 27, 36, 47, 61, 71, 94, 122),
    "cb": (26, 41, 44, 57, 71, 91, 137, 173, 258, 270),
    "sst2": (3, 4, 6, 8, 12, 18, 26, 32, 48, 103),
    "mrpc": (17, 31, 34, 41, 50, 62, 74, 83, 101, 148),
    "qqp": (6, 14, 16, 20, 26, 35, 44, 51, 67, 112),
    "cola": (3, 5, 6, 8, 11, 14, 19, 22, 30, 53),
    "tiny-rte": (11, 11, 11, 11, 12, 13, 13, 14, 14, 14),
    "tiny-qnli": (12, 12, 12, 12, 13, 13, 14, 14, 15, 15),
    "tiny-wnli": (14, 14, 14, 16, 16, 18, 23, 24, 24, 24),
    "tiny-mnli": (11, 11, 11, 11, 13, 15, 17, 17, 17, 17),
    "tiny-cb": (21, 21, 21, 21, 22, 23, 24, 24, 25, 25),
    "tiny-sst2": (8, 8, 10, 10, 12, 13, 13, 14, 14, 14),
    "tiny-mrpc": (15, 15, 19, 19, 23, 25, 25, 27, 27, 27),
    "tiny-qqp": (19, 19, 21, 21, 23, 25, 25, 27, 27, 27),
    "tiny-cola": (8, 10, 10, 10, 12, 13, 13, 14, 14, 14),
}
# Batches that are laid out to see what they compute.
_BATCHES = 100


@dataclass(frozen=True)
class BatchWork:
    """What the batches of a trial compute.

    Attributes:
        length: mean number of computed tokens for each training example, padding included.
        largest: examples and tokens of each in the micro-batch that needs the most memory.
        evaluated: mean number of computed tokens for each validation example.
    """

    length: int
    largest: tuple[int, int]
    evaluated: int


def batch_work(
    task: Task, recipe: Recipe, known: tuple[int, ...] | None = None, *, exact: bool = False
) -> BatchWork:
    """What the batches of a task compute under a recipe.

    Args:
        known: tokens of each training example; without them, typical lengths of the task are used, and
            batches that are padded to their longest are assumed to reach ``max_length``.
        exact: whether the typical lengths are the model's own, as those of tiny tasks are for tiny models.
    """
    return _work(known or _typical(task.name, recipe.max_length), recipe, known is None and not exact)


@cache
def _work(texts: tuple[int, ...], recipe: Recipe, assumed: bool) -> BatchWork:
    lengths = [min(length, recipe.max_length) for length in texts]
    size = recipe.batch_size
    most = recipe.micro_batch_size or size
    mean = math.ceil(sum(lengths) / len(lengths))
    if recipe.padding == "max_length":
        return BatchWork(recipe.max_length, (most, recipe.max_length), recipe.max_length)
    # Choosing the micro-batches of one batch takes time that grows with its square.
    count = max(1, min(recipe.steps, _BATCHES, 10**6 // size**2))
    drawn = random.Random(0)
    groups = [group for _ in range(count) for group in _layout(drawn.choices(lengths, k=size), recipe, most)]
    if recipe.padding == "packed":
        computed = sum(map(sum, groups))
        shapes = [(len(group), math.ceil(sum(group) / len(group))) for group in groups]
    else:
        shapes = [(len(group), max(group)) for group in groups]
        computed = sum(map(math.prod, shapes))
    largest = max(shapes, key=math.prod)
    if recipe.padding == "longest":
        largest = (most, recipe.max_length if assumed else max(lengths))
    return BatchWork(round(computed / (count * size)), largest, mean)


def _layout(batch: list[int], recipe: Recipe, most: int) -> list[list[int]]:
    """The lengths of one batch in micro-batches, as ``lfreeze.training.batches`` lays it out."""
    if recipe.padding == "bucketed":
        places = micro_batches(batch, most_examples=recipe.micro_batch_size)
        return [[batch[place] for place in group] for group in places]
    return [batch[start : start + most] for start in range(0, len(batch), most)]


@cache
def _typical(task: str, longest: int) -> tuple[int, ...]:
    """Lengths that are spread as those of a task's training examples; the longest where the table lacks the task."""
    values = _QUANTILES.get(task, (longest,) * len(_SHARES))
    return tuple(round(_at((i + 0.5) / 1000, values)) for i in range(1000))


def _at(share: float, values: Sequence[int]) -> float:
    """The quantile at a share, linear between those in the table."""
    above = next(i for i, edge in enumerate(_SHARES) if edge >= share)
    low, high = _SHARES[above - 1], _SHARES[above]
    part = (share - low) / (high - low)
    return values[above - 1] + part * (values[above] - values[above - 1])


def known_lengths(space: SearchSpace, data_dir: Path | None = None) -> KnownLengths:
    """The lengths of texts under ``data_dir`` or in the cache, with tokenizers in the cache; nothing is downloaded.

    Texts of tiny tasks are not read for tiny models: their typical lengths are exact.

    Raises:
        InputError: a file under ``data_dir`` or in the cache is malformed.
    """
    if all(recipe.padding == "max_length" for recipe in space.recipes.values()):
        return {}
    found = {}
    for name, task in space.tasks.items():
        models = [card for card in space.cards.values() if not (task.tiny and card.tiny)]
        models = [card for card in models if model_availability(card, ask_hub=False).cached]
        if models and (data_dir is not None or task_availability(task, ask_hub=False).cached):
            lengths = _read(task, models, space, data_dir)
            found.update({(model, name): value for model, value in lengths.items()})
    return found


def _read(
    task: Task, models: Sequence[ModelCard], space: SearchSpace, data_dir: Path | None
) -> dict[str, tuple[int, ...]]:
    from lfreeze.data.encoding_cache import encoded

    recipe = max(space.recipes.values(), key=lambda recipe: recipe.max_length)
    seed = recipe.drawing_seed(space.seeds[0])
    data = load_task(task, recipe.max_train_examples, seed, data_dir, recipe.max_validation_examples)
    lengths = {}
    for card in models:
        # A plan needs no usable weights and tokenizer; a run refuses such a model.
        with contextlib.suppress(ModelError):
            checkpoint = find_checkpoint(card)
            if not card.known:
                attempt_tokenizer(checkpoint, all_texts({task.name: {seed: data}}))
            texts = encoded(data, checkpoint, recipe.max_length, recipe.pair_separator)
            lengths[card.name] = tuple(map(len, texts.train.input_ids))
    return lengths
