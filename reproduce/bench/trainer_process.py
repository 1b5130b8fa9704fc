"""One trial with ``transformers.Trainer`` in a process of its own: ``python -m reproduce.bench.trainer_process TRIAL.json``.

It loads, trains and evaluates as a script that is started once for each trial does, and imports nothing else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from lfreeze.callback import FreezeCallback
from lfreeze.recipe import Recipe


def arguments(recipe: Recipe, folder: Path, seed: int) -> TrainingArguments:
    """A recipe's values as Trainer's arguments; it saves, logs and reports nothing.

    Args:
        folder: where Trainer would save.
    """
    return TrainingArguments(
        output_dir=str(folder),
        seed=seed,
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
    )


def main(path: Path) -> None:
    """Run the trial that a file describes, and write its accuracy beside it."""
    trial = json.loads(path.read_text("utf-8"))
    recipe, texts = Recipe.from_mapping(trial["recipe"]), json.loads(Path(trial["texts"]).read_text("utf-8"))
    torch.set_num_threads(recipe.cpu_threads)
    set_seed(trial["seed"])
    tokenizer = AutoTokenizer.from_pretrained(trial["model"])
    model = AutoModelForSequenceClassification.from_pretrained(
        trial["model"], num_labels=trial["labels"], dtype=torch.float32
    )
    model.config.pad_token_id = tokenizer.pad_token_id

    def dataset(split: str) -> list[dict[str, Any]]:
        first, second, labels = (list(column) for column in zip(*texts[split], strict=True))
        encoded = tokenizer(first, second, truncation="longest_first", max_length=recipe.max_length)
        ids = encoded["input_ids"]
        return [
            {"input_ids": row, "attention_mask": [1] * len(row), "labels": label}
            for row, label in zip(ids, labels, strict=True)
        ]

    options = {
        "probe_steps": recipe.probe_steps, "lora_rank": recipe.lora_rank, "lora_alpha": recipe.lora_alpha,
        "lora_dropout": recipe.lora_dropout, "lora_targets": recipe.lora_targets,
    }  # fmt: skip
    trainer = Trainer(
        model,
        arguments(recipe, path.with_suffix(""), trial["seed"]),
        train_dataset=dataset("train"),
        eval_dataset=dataset("validation"),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(-1) == p.label_ids).mean())},
        callbacks=[FreezeCallback(trial["strategy"], **options)],
    )
    trainer.train()
    path.with_suffix(".result.json").write_text(json.dumps(trainer.evaluate()), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
