"""What the benchmarks share: one reference model with random weights, its texts, a recipe and a scratch folder."""

from __future__ import annotations

import dataclasses
import functools
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from lfreeze.data.encoding import EncodedSplit, EncodedTask, encode_task
from lfreeze.data.loading import load_task
from lfreeze.data.tasks import TaskData
from lfreeze.model_shape import ModelShape
from lfreeze.models.catalog import MODELS, Checkpoint
from lfreeze.models.files import tokenizer_hash
from lfreeze.models.loading import BaseModel, load_tokenizer
from lfreeze.recipe import Recipe
from lfreeze.strategy import Strategy
from lfreeze.tiny.tokenizer import train_tokenizer
from lfreeze.training.loop import train
from lfreeze.training.record import Step, TrainingRecord
from reproduce.bench.settings import Settings
from reproduce.plan.search_space import load_space

SEED = 42
LABELS = 2
_VALIDATION = 128
_EVALUATED = 8
# Lengths of RTE's training pairs with a tokenizer that is trained on them are nearly lognormal: the median is
# 54 tokens, and an eighth have 128 or more.
_MEDIAN_TOKENS, _SPREAD = 54.0, 0.75


class Workbench:
    """The reference model and its texts, made when they are first used.

    Args:
        scratch: an empty folder for files that are not kept.
    """

    def __init__(self, settings: Settings, scratch: Path):
        self.settings, self.scratch = settings, scratch
        self.device = torch.device(settings.device)
        if settings.device == "cpu":
            torch.set_num_threads(settings.cpu_threads)

    def require_texts(self) -> None:
        """Read the task's files now, before anything is measured.

        Raises:
            TaskError: the data folder lacks them.
        """
        self._data  # noqa: B018

    @functools.cached_property
    def recipe(self) -> Recipe:
        """The paper's recipe over a few steps of an epoch of four batches, padded to the full length."""
        chosen = self.settings
        return dataclasses.replace(
            load_space("efficiency").recipe,
            steps=chosen.steps,
            batch_size=chosen.batch_size,
            max_length=chosen.max_length,
            max_train_examples=4 * chosen.batch_size,
            max_validation_examples=_VALIDATION,
            probe_steps=2,
            timing_warmup_steps=1,
            cpu_threads=chosen.cpu_threads,
            precision="fp32" if chosen.device == "cpu" else "bf16-mixed",
        )

    @functools.cached_property
    def checkpoint(self) -> Checkpoint:
        """The reference model without weights, with a tokenizer that is trained on the task's texts."""
        folder = self.scratch / "reference-model"
        config: dict[str, Any] = self.settings.model_config or {**MODELS["gemma-2b"].config}
        texts = [text for e in self._data.train for text in e.texts]
        # Gemma-2b's own vocabulary has eight times as many entries; the texts fill no more than these.
        size = min(32_000, config["vocab_size"])
        train_tokenizer(texts, 512, vocabulary_size=size).save_pretrained(folder)
        (folder / "config.json").write_text(json.dumps(config), "utf-8")
        return Checkpoint(
            name="reference",
            model_id="local/reference",
            config_file=folder / "config.json",
            folder=None,
            tokenizer_folder=folder,
            weights_hash="",
            tokenizer_hash=tokenizer_hash(folder, None),
        )

    @functools.cached_property
    def _data(self) -> TaskData:
        recipe, folder = self.recipe, self.settings.data_dir
        # Enough texts for a vocabulary like a real one's.
        return load_task("rte" if folder else "tiny-rte", 2_490, 0, folder, recipe.max_validation_examples)

    @functools.cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.checkpoint)

    @functools.cached_property
    def texts(self) -> EncodedTask:
        """The task's texts; generated ones are joined until they are as long as real ones."""
        task = encode_task(self._data, self.tokenizer, self.recipe.max_length)
        drawn = random.Random(0)
        if self.settings.data_dir is None:
            train, validation = (
                _joined(split, drawn, self.recipe.max_length) for split in (task.train, task.validation)
            )
            task = EncodedTask(train, validation, task.pad_token_id)
        chosen = drawn.sample(range(len(task.train)), self.recipe.max_train_examples)
        return dataclasses.replace(task, train=taken(task.train, chosen))

    @functools.cached_property
    def shape(self) -> ModelShape:
        return ModelShape.from_config(self.checkpoint.config)

    @functools.cached_property
    def base(self) -> BaseModel:
        """The loaded reference model."""
        return BaseModel(self.checkpoint, LABELS, self.recipe, self.device)

    def train(
        self, strategy: str, recipe: Recipe, on_step: Callable[[Step], None] | None = None
    ) -> TrainingRecord:
        """One trial of the reference model with this project's loop, from its initial weights.

        It evaluates few examples, since only training is measured.
        """
        parsed, base = Strategy.parse(strategy), self.base
        data = dataclasses.replace(self.texts, validation=taken(self.texts.validation, range(_EVALUATED)))
        model: Any = base.reset(SEED)
        try:
            return train(model, data, recipe, parsed, SEED, self.device, on_step=on_step)
        finally:
            base.release(parsed.implementation)


def _joined(split: EncodedSplit, drawn: random.Random, max_length: int) -> EncodedSplit:
    """Each example with as many of the following examples' tokens as a drawn length needs."""
    ids = []
    for place in range(len(split)):
        length = min(max_length, max(10, round(drawn.lognormvariate(0, _SPREAD) * _MEDIAN_TOKENS)))
        row: list[int] = []
        while len(row) < length:
            row += split.input_ids[place % len(split)]
            place += 1
        ids.append(tuple(row[:length]))
    return dataclasses.replace(split, input_ids=tuple(ids))


def taken(split: EncodedSplit, places: Sequence[int]) -> EncodedSplit:
    """The examples of a split at some places, in their order."""
    return dataclasses.replace(
        split,
        input_ids=tuple(split.input_ids[place] for place in places),
        labels=tuple(split.labels[place] for place in places),
    )
