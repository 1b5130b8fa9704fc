"""The same training with ``transformers.Trainer``, as its documentation writes it."""

from __future__ import annotations

import time
from typing import Any

from torch.utils.data import SequentialSampler
from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainerCallback

from lfreeze.data.encoding import EncodedSplit, training_order
from lfreeze.freezing import freeze
from lfreeze.hf_logging import silence_transformers
from lfreeze.recipe import Recipe
from reproduce.bench.trainer_process import arguments
from reproduce.bench.workbench import SEED, Workbench


class Stopwatch(TrainerCallback):
    """The moment at which each step ends."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def on_step_end(self, *positional: Any, **named: Any) -> None:
        self.moments.append(time.perf_counter())


class OrderedTrainer(Trainer):
    """Trains the examples in their order, which has been drawn already."""

    def _get_train_sampler(self, *positional: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


def features(split: EncodedSplit, places: list[int]) -> list[dict[str, Any]]:
    """Examples as the dataset of a Trainer."""
    chosen = [(list(split.input_ids[place]), split.labels[place]) for place in places]
    return [{"input_ids": ids, "attention_mask": [1] * len(ids), "labels": label} for ids, label in chosen]


def trainer_moments(bench: Workbench, strategy: str, recipe: Recipe) -> list[float]:
    """Train the reference model with a Trainer on the loop's batches; the moment at which each step ends.

    Padded as the recipe says: to the full length, or each batch to its longest.
    """
    split = bench.texts.train
    order = training_order(len(split), recipe.steps * recipe.batch_size, SEED)
    base, watch = bench.base, Stopwatch()
    model: Any = base.reset(SEED)
    model.config.use_cache = False
    freeze(model, strategy)
    fixed = (
        {"padding": "max_length", "max_length": recipe.max_length} if recipe.padding == "max_length" else {}
    )
    with silence_transformers():
        trainer = OrderedTrainer(
            model,
            arguments(recipe, bench.scratch / "trainer", SEED),
            train_dataset=features(split, order),
            data_collator=DataCollatorWithPadding(bench.tokenizer, **fixed),
            callbacks=[watch],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    # Mixed precision wraps the model's forward function.
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    trainer.optimizer.state.clear()
    return watch.moments
