"""Realistic trials without training: every column of the contract, from a few factors and a seed."""

from __future__ import annotations

import hashlib
import json
import random
import zlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lfreeze.errors import StrategyError
from lfreeze.models.catalog import MODELS
from lfreeze.recipe import Recipe, field_types
from lfreeze.strategy import paper_strategies
from reproduce.plan.spec import Factors, Inputs, TrialSpec
from reproduce.report.strategy_order import kind_and_percent
from reproduce.store.columns import WORDS
from reproduce.store.parquet import TrialResult, write_trial
from reproduce.store.schema import SCHEMA_VERSION, TRIAL_SCHEMA
from reproduce.store.trial_row import TrialRow

_LAYERS = 8
_RECIPE = Recipe(
    batch_size=32,
    max_length=128,
    steps=100,
    learning_rate=1e-3,
    schedule="cosine",
    lora_rank=8,
    lora_alpha=32,
    lora_dropout=0.1,
    max_train_examples=3200,
    probe_steps=5,
    precision="fp32",
)
_START = datetime(2025, 1, 6, 9, 0, tzinfo=UTC)
_FREEZING = {"LoRA": 0.75, "BOT": 1.0, "TOP": 0.35, "INT": 0.3}


def trial_row(
    strategy: str, model: str = "tiny-gemma", task: str = "tiny-rte", seed: int = 42, **changes: Any
) -> dict[str, Any]:
    """One trial's row; keyword arguments override columns, a ``status`` other than ok empties the outcome."""
    family, percent = kind_and_percent(strategy)
    ratio = (percent or 0.0) / 100
    source = random.Random(zlib.crc32(f"{strategy}/{model}/{task}/{seed}".encode()))
    level = 0.6 + 0.25 * (zlib.crc32(task.encode()) % 100) / 100
    correct = round(
        277 * min(1.0, level + 0.1 * (ratio < 0.6) - 0.2 * max(0.0, ratio - 0.5) + source.gauss(0, 0.02))
    )
    saving = 0.75 if family == "LoRA" else _FREEZING.get(family, 0.45) * ratio * 0.9
    adaptive = family.startswith("ADT")
    total, all_training = 524_288, 24 << 20
    frozen = list(range(int(ratio * _LAYERS)))
    training = round(all_training * (1 - saving)) + source.randrange(1000)
    seconds = 0.42 * (1 - 0.6 * saving) * (1 + 0.03 * source.random())
    row: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "run_id": "",
        "space": "synthetic",
        "attempt": 1,
        "started_at": _START,
        "finished_at": _START + timedelta(seconds=6),
        "strategy": strategy,
        "kind": family,
        "ratio": ratio or None,
        "model": model,
        "task": task,
        "seed": seed,
        "status": "ok",
        "validation_accuracy": correct / 277,
        "n_validation": 277,
        "majority_accuracy": 0.527,
        "label_names": ["entailment", "not_entailment"],
        "step_seconds_median": seconds / 10,
        "step_seconds_q25": seconds / 11,
        "step_seconds_q75": seconds / 9,
        "seconds_per_10_steps": seconds,
        "n_timed_steps": 90,
        "probe_step_seconds_median": 0.043 if adaptive else None,
        "selection_seconds": 0.01,
        "setup_seconds": 0.2,
        "train_seconds": seconds * 10,
        "eval_seconds": 0.3,
        "total_seconds": seconds * 10 + 0.5,
        "gap_seconds": 0.03,
        "worker_trial_index": 1,
        "tokens": 57_600,
        "exclusive": True,
        "memory_method": "torch profiler (CPU)",
        "static_bytes": 4 * total,
        "peak_allocated_bytes": 4 * total + training,
        "training_bytes": training,
        "probe_peak_bytes": 4 * total + all_training if adaptive else None,
        "probe_training_bytes": all_training if adaptive else None,
        "weights_bytes": 4 * total,
        "gradient_bytes": 4 * total,
        "optimiser_bytes": 8 * total,
        "activation_bytes": training // 2,
        "predicted_weights_bytes": 4 * total,
        "predicted_gradient_bytes": 4 * total,
        "predicted_optimiser_bytes": 8 * total,
        "predicted_activation_bytes": training // 2,
        "predicted_training_bytes": training,
        "predicted_step_flops": round(1e9 * (3 - 2 * ratio if family == "BOT" else 3 - ratio)),
        "n_layers": _LAYERS,
        "frozen_layers": frozen,
        "embeddings_frozen": family in ("BOT", "LoRA"),
        "trainable_parameters": 4_000 if family == "LoRA" else round(total * (1 - ratio)),
        "total_parameters": total,
        "backward_depth": _LAYERS - len(frozen) if family == "BOT" else _LAYERS,
        "planned_backward_depth": _LAYERS - len(frozen) if family == "BOT" else _LAYERS,
        "frozen_unchanged": True,
        "every_trainable_got_gradient": True,
        "optimiser_holds_trainable": True,
        "layer_changes": [0.1 * i for i in range(_LAYERS)] if adaptive else None,
        "switch_step": 5 if adaptive else None,
        **{f"recipe_{name}": getattr(_RECIPE, name) for name in field_types()},
        "weights": "pretrained",
        "model_id": MODELS[model].model_id if model in MODELS else f"local/{model}",
        "weights_hash": f"{zlib.crc32(model.encode()):064x}",
        "tokenizer_hash": "b" * 64,
        "dataset_id": f"lfreeze.tiny/{task}",
        "dataset_fingerprint": f"{zlib.crc32(task.encode()):064x}",
        "n_train": 2490,
        "n_train_available": 2490,
        "n_validation_available": 277,
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "git_dirty": False,
        "lfreeze_version": "0.1.0",
        "python_version": "3.11.9",
        "torch_version": "2.10.0",
        "transformers_version": "5.0.0",
        "peft_version": "0.18.0",
        "ray_version": "2.60.0",
        "package_versions_json": json.dumps({"torch": "2.10.0"}),
        "platform": "Linux x86_64",
        "device": "cpu",
        "cpu_model": "A CPU of 2.0 GHz",
        "attention_implementation": "eager",
        "deterministic_algorithms": True,
    }
    if changes.get("status", "ok") != "ok":
        identity = {"schema_version", "run_id", "space", "attempt", "started_at", "finished_at", "strategy"}
        identity |= {"kind", "ratio", "model", "task", "seed", "git_commit", "device", "cpu_model", "weights"}
        identity |= {"model_id", "weights_hash", "tokenizer_hash", "dataset_id", "dataset_fingerprint"}
        row = {k: v for k, v in row.items() if k in identity or k.startswith("recipe_")}
        row |= {"error_type": "RuntimeError", "error_message": "it broke"}
    row |= changes
    row["run_id"] = row["run_id"] or _run_id(row)
    nulls = [name for name in TRIAL_SCHEMA if row.get(name) is None and name != "null_reasons"]
    row["null_reasons"] = [{"column": name, "reason": f"no {name} in this test"} for name in nulls]
    return row


def _run_id(row: dict[str, Any]) -> str:
    recipe = {name: row[f"recipe_{name}"] for name in field_types()}
    # A word in a column of numbers is a null there.
    recipe |= {name: word for name, (word, _) in WORDS.items() if recipe[name] is None}
    names = ("model_id", "weights_hash", "tokenizer_hash", "dataset_id", "dataset_fingerprint")
    factors = Factors(row["model"], row["task"], row["strategy"], row["seed"])
    inputs = Inputs(**{name: row[name] for name in names})
    try:
        return TrialSpec(factors, Recipe.from_mapping(recipe), inputs, row["space"]).run_id
    except StrategyError:
        # A strategy of another version or package.
        return hashlib.sha256(str(factors).encode()).hexdigest()[:16]


def write_rows(root: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write rows as finished trials of an artifact folder."""
    (root / "trials").mkdir(parents=True, exist_ok=True)
    for row in rows:
        write_trial(root, TrialResult(TrialRow.from_columns(row)))
    return root


def grid(
    models: Iterable[str] = ("tiny-gemma",),
    tasks: Iterable[str] = ("tiny-rte", "tiny-cb"),
    strategies: Iterable[str] = paper_strategies(),
    seeds: Iterable[int] = (42, 43, 44),
    **changes: Any,
) -> list[dict[str, Any]]:
    """The rows of a full grid."""
    tasks, strategies, seeds = list(tasks), list(strategies), list(seeds)
    return [
        trial_row(strategy, model, task, seed, **changes)
        for model in models
        for task in tasks
        for strategy in strategies
        for seed in seeds
    ]
