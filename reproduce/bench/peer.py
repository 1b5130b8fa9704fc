"""The same training with ``transformers.Trainer``, as its documentation writes it."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from lfreeze.data.encoding import EncodedSplit, training_order
from lfreeze.freezing import freeze
from lfreeze.hf_logging import silence_transformers
from lfreeze.recipe import Recipe
from reproduce.bench.workbench import SEED, Workbench


class Stopwatch(TrainerCallback):
    """The moment at which each step ends."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def on_step_end(self, *arguments: Any, **named: Any) -> None:
        self.moments.append(time.perf_counter())


class OrderedTrainer(Trainer):
    """Trains the examples in their order, which has been drawn already."""

    def _get_train_sampler(self, *arguments: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


def arguments(recipe: Recipe, folder: str, **more: Any) -> TrainingArguments:
    """A recipe's values as Trainer's arguments; it saves, logs and reports nothing.

    Args:
        folder: where Trainer would save.
    """
    return TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.eval_batch_size,
        max_steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup_steps,
        weight_decay=recipe.weight_decay,
        adam_beta1=recipe.adam_beta1,
        adam_beta2=recipe.adam_beta2,
        adam_epsilon=recipe.adam_epsilon,
        max_grad_norm=recipe.max_grad_norm,
        optim="adamw_torch_fused" if torch.cuda.is_available() else "adamw_torch",
        bf16=recipe.precision == "bf16-mixed",
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **more,
    )


def features(split: EncodedSplit, places: list[int]) -> list[dict[str, Any]]:
    """Examples as the dataset of a Trainer."""
    chosen = [(list(split.input_ids[place]), split.labels[place]) for place in places]
    return [{"input_ids": ids, "attention_mask": [1] * len(ids), "labels": label} for ids, label in chosen]


def train_with_trainer(bench: Workbench, strategy: str, recipe: Recipe) -> list[float]:
    """Train the reference model with Trainer on the loop's batches; the moment at which each step ends.

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
            arguments(recipe, str(bench.scratch / "trainer")),
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
