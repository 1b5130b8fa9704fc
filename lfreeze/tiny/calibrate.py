"""How well full fine-tuning (ALL) does on the tiny tasks: ``python -m lfreeze.tiny.calibrate``.

The suite's fine-tuning learning rate and the pre-training settings were chosen by this program's output
alone. It can run no other strategy than ALL, so that the suite could not be tuned towards a finding.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lfreeze.encoding import encode_task
from lfreeze.loading import BaseModel, load_tokenizer
from lfreeze.models import find_checkpoint
from lfreeze.recipe import Recipe
from lfreeze.strategy import Strategy
from lfreeze.tasks import load_task
from lfreeze.tiny.architectures import TINY_MODELS
from lfreeze.tiny.tasks import TINY_TASKS
from lfreeze.training import train

LEARNING_RATE = 1e-3
SEEDS = (42, 43, 44)
RECORD = Path(__file__).parent / "calibration.json"


def recipe(learning_rate: float) -> Recipe:
    """The paper's recipe, but for the learning rate and the precision."""
    return Recipe(
        batch_size=32,
        max_length=128,
        steps=100,
        learning_rate=learning_rate,
        schedule="cosine",
        lora_rank=8,
        lora_alpha=32,
        lora_dropout=0.1,
        max_train_examples=3_200,
        probe_steps=5,
        precision="fp32",
    )


def measure(
    model: str, task: str, seeds: Sequence[int], learning_rate: float, weights: Path | None
) -> dict[str, Any]:
    """Validation accuracy of ALL for each seed; ``weights`` is a folder of model folders, if not the package's."""
    settings, device = recipe(learning_rate), torch.device("cpu")
    checkpoint = find_checkpoint(model, {model: weights / model} if weights else {})
    data = load_task(task, settings.max_train_examples, settings.data_seed)
    encoded = encode_task(data, load_tokenizer(checkpoint), settings.max_length)
    base, everything = BaseModel(checkpoint, len(data.task.labels), settings, device), Strategy.parse("ALL")
    accuracies, started = [], time.perf_counter()
    for seed in seeds:
        record = train(base.reset(seed), encoded, settings, everything, seed, device)
        base.release(everything.implementation)
        accuracies.append(round(record.predictions.accuracy, 4))
    return {
        "model": model,
        "task": task,
        "majority": round(data.majority_accuracy, 4),
        "mean": round(statistics.mean(accuracies), 4),
        "accuracies": accuracies,
        "seconds_per_run": round((time.perf_counter() - started) / len(seeds), 2),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m lfreeze.tiny.calibrate", description=__doc__)
    parser.add_argument("--models", default=",".join(TINY_MODELS))
    parser.add_argument("--tasks", default=",".join(TINY_TASKS))
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    parser.add_argument("--weights", type=Path, help="folder of model folders (default: the package's)")
    parser.add_argument(
        "--record", type=Path, help=f"write the rows to this JSON file, such as {RECORD.name}"
    )
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    seeds, rows = [int(seed) for seed in chosen.seeds.split(",")], []
    for model in chosen.models.split(","):
        for task in chosen.tasks.split(","):
            row = measure(model, task, seeds, chosen.learning_rate, chosen.weights)
            rows.append(row)
            print(*row.values(), flush=True)
    if chosen.record:
        write_record(chosen.record, rows, chosen.learning_rate, seeds)


def write_record(path: Path, rows: list[dict[str, Any]], learning_rate: float, seeds: Sequence[int]) -> None:
    """Write the rows, in the suite's order; rows that the file has of other models and tasks are kept.

    Raises:
        ValueError: the file's rows were measured with other settings.
    """
    settings: dict[str, Any] = {"strategy": "ALL", "learning_rate": learning_rate, "seeds": list(seeds)}
    kept: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {**settings, "rows": []}
    if {name: kept[name] for name in settings} != settings:
        raise ValueError(f"{path.name} was measured with other settings than {settings}; choose another file")
    by_cell = {(row["model"], row["task"]): row for row in kept["rows"] + rows}
    ordered = [by_cell[m, t] for m in TINY_MODELS for t in TINY_TASKS if (m, t) in by_cell]
    path.write_text(json.dumps({**settings, "rows": ordered}, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
