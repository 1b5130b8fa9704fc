"""A trial's outcome as the rows of the Parquet contract, every null with its reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lfreeze.data.tasks import TaskData
from lfreeze.model_shape import ModelShape, ShapeError
from lfreeze.models.catalog import Checkpoint
from lfreeze.strategy import Strategy
from lfreeze.training.record import TrainingRecord
from reproduce.plan.spec import TrialSpec
from reproduce.store.parquet import SCHEMA_VERSION, TRIAL_SCHEMA

_NOT_ADAPTIVE = "the strategy is not adaptive"
_NO_GPU = "no GPU was used"
_LOCAL = "not read from the hub; identified by its hash"
_NO_CLOSED_FORM = "no closed form of this architecture's memory"
# Why a column of a trial with status ok may be null.
_REASONS = {
    "ratio": "the strategy has no ratio",
    "error_type": "the trial succeeded",
    "error_message": "the trial succeeded",
    "probe_step_seconds_median": _NOT_ADAPTIVE,
    "gap_seconds": "the first trial of its worker",
    "peak_reserved_bytes": "the CPU has no caching allocator",
    "probe_peak_bytes": _NOT_ADAPTIVE,
    "probe_training_bytes": _NOT_ADAPTIVE,
    "layer_changes": _NOT_ADAPTIVE,
    "switch_step": _NOT_ADAPTIVE,
    "model_revision": _LOCAL,
    "dataset_revision": _LOCAL,
    **{name: _NO_CLOSED_FORM for name in TRIAL_SCHEMA if name.startswith("predicted_")},
    "git_commit": "neither a git checkout nor a wheel built from one",
    "git_dirty": "neither a git checkout nor a wheel built from one",
    "image_digest": "LFREEZE_IMAGE_DIGEST is not set",
    "ray_version": "Ray is not installed",
    "cuda_version": _NO_GPU,
    "cudnn_version": _NO_GPU,
    "driver_version": _NO_GPU,
    "gpu_name": _NO_GPU,
    "gpu_memory_bytes": _NO_GPU,
    "gpu_share": _NO_GPU,
}


def identity_row(spec: TrialSpec, attempt: int) -> dict[str, Any]:
    """The columns that are known before a trial starts."""
    strategy = Strategy.parse(spec.cell.strategy)
    inputs = spec.inputs
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": spec.run_id,
        "space": spec.space,
        "attempt": attempt,
        "strategy": strategy.name,
        "kind": strategy.kind,
        "ratio": float(strategy.ratio) if strategy.percent else None,
        "model": spec.cell.model,
        "task": spec.cell.task,
        "seed": spec.cell.seed,
        "weights": inputs.weights,
        "model_id": inputs.model_id,
        "model_revision": inputs.model_revision,
        "weights_hash": inputs.weights_hash,
        "tokenizer_hash": inputs.tokenizer_hash,
        "dataset_id": inputs.dataset_id,
        "dataset_revision": inputs.dataset_revision,
        "dataset_fingerprint": inputs.dataset_fingerprint,
        **{f"recipe_{name}": value for name, value in dataclasses.asdict(spec.recipe).items()},
    }


def outcome_row(
    spec: TrialSpec, record: TrainingRecord, checkpoint: Checkpoint, data: TaskData
) -> dict[str, Any]:
    """The columns of a finished training run."""
    low, middle, high = record.step_quartiles()
    probe = record.probe_memory
    plan, proof, memory = record.plan, record.proof, record.memory
    return {
        "status": "ok",
        "validation_accuracy": record.predictions.accuracy,
        "n_validation": len(data.validation),
        "majority_accuracy": data.majority_accuracy,
        "label_names": list(data.task.labels),
        "n_train": len(data.train),
        "n_train_available": data.n_available,
        "n_validation_available": data.n_validation_available,
        "step_seconds_median": middle,
        "step_seconds_q25": low,
        "step_seconds_q75": high,
        "seconds_per_10_steps": 10 * middle,
        "n_timed_steps": sum(s.timed and s.phase == "train" for s in record.steps),
        "probe_step_seconds_median": record.step_quartiles("probe")[1] if record.switch_step else None,
        "selection_seconds": record.selection_seconds,
        "train_seconds": record.train_seconds,
        "eval_seconds": record.eval_seconds,
        "tokens": sum(s.tokens for s in record.steps),
        "memory_method": record.memory_method,
        "static_bytes": record.static_bytes,
        "peak_allocated_bytes": memory.peak_allocated,
        "peak_reserved_bytes": memory.peak_reserved,
        "training_bytes": memory.training,
        "probe_peak_bytes": probe.peak_allocated if probe else None,
        "probe_training_bytes": probe.training if probe else None,
        "weights_bytes": record.static_bytes,
        "gradient_bytes": memory.gradient,
        "optimiser_bytes": memory.optimiser,
        "activation_bytes": memory.activation,
        "n_layers": plan.n_layers,
        "frozen_layers": list(plan.frozen_layers),
        "embeddings_frozen": plan.embeddings_frozen,
        "trainable_parameters": plan.trainable_parameters,
        "total_parameters": plan.total_parameters,
        "backward_depth": proof.backward_depth,
        "planned_backward_depth": plan.backward_depth,
        "frozen_unchanged": proof.frozen_unchanged,
        "every_trainable_got_gradient": proof.every_trainable_got_gradient,
        "optimiser_holds_trainable": proof.optimiser_holds_trainable,
        "layer_changes": list(plan.layer_changes) if plan.layer_changes else None,
        "switch_step": record.switch_step,
        **_predicted(spec, record, checkpoint, data),
    }


def failure_row(status: str, error_type: str, message: str) -> dict[str, Any]:
    """The columns of a trial that did not finish; of the message, its first lines."""
    return {"status": status, "error_type": error_type, "error_message": message.strip()[:2000]}


def complete(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with every column, each null explained."""
    nulls = [name for name in TRIAL_SCHEMA if row.get(name) is None and name != "null_reasons"]
    failed = f"the trial ended with status {row['status']}"
    reasons = [
        {
            "column": name,
            "reason": _REASONS.get(name) if row["status"] == "ok" else _REASONS.get(name, failed),
        }
        for name in nulls
    ]
    return {**row, "null_reasons": [entry for entry in reasons if entry["reason"]]}


def _predicted(
    spec: TrialSpec, record: TrainingRecord, checkpoint: Checkpoint, data: TaskData
) -> dict[str, Any]:
    """The same memory in closed form, at the mean length of the batches that were trained on."""
    try:
        shape = ModelShape.from_config(checkpoint.config)
    except ShapeError:
        return {}
    per_step = sum(s.tokens for s in record.steps) / len(record.steps)
    cost = Strategy.parse(spec.cell.strategy).cost(
        shape,
        spec.recipe,
        n_labels=len(data.task.labels),
        length=round(per_step / spec.recipe.batch_size),
    )
    return {
        "predicted_weights_bytes": cost.weights_bytes,
        "predicted_gradient_bytes": cost.gradient_bytes,
        "predicted_optimiser_bytes": cost.optimiser_bytes,
        "predicted_activation_bytes": cost.activation_bytes,
        "predicted_training_bytes": cost.training_bytes,
        "predicted_step_flops": cost.forward_flops + cost.backward_flops,
    }
