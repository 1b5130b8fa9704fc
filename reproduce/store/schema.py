"""The columns of the Parquet contract: one explicit schema, with units in the names.

Times are in seconds, memory in bytes, accuracies and shares are fractions of 1, layers count from 0.
"""

import polars as pl

from lfreeze.recipe import field_types

SCHEMA_VERSION = 2
TABLES = ("trials", "steps", "predictions")

_UTC = pl.Datetime("us", "UTC")
_RECIPE_DTYPES = {int: pl.Int64(), float: pl.Float64(), str: pl.String()}

TRIAL_SCHEMA: dict[str, pl.DataType] = {
    # identity
    "schema_version": pl.Int32(),
    "run_id": pl.String(),
    "space": pl.String(),
    "attempt": pl.Int32(),
    "started_at": _UTC,
    "finished_at": _UTC,
    # factors; ratio is the frozen fraction of the layers that the strategy's name asks for
    "strategy": pl.String(),
    "kind": pl.String(),
    "ratio": pl.Float64(),
    "model": pl.String(),
    "task": pl.String(),
    "seed": pl.Int64(),
    # outcome
    "status": pl.String(),
    "error_type": pl.String(),
    "error_message": pl.String(),
    # accuracy, as fractions of 1
    "validation_accuracy": pl.Float64(),
    "n_validation": pl.Int64(),
    "majority_accuracy": pl.Float64(),
    "label_names": pl.List(pl.String()),
    # speed: over the timed steps of the final phase
    "step_seconds_median": pl.Float64(),
    "step_seconds_q25": pl.Float64(),
    "step_seconds_q75": pl.Float64(),
    "seconds_per_10_steps": pl.Float64(),
    "n_timed_steps": pl.Int64(),
    "probe_step_seconds_median": pl.Float64(),
    "selection_seconds": pl.Float64(),
    "setup_seconds": pl.Float64(),
    "train_seconds": pl.Float64(),
    "eval_seconds": pl.Float64(),
    "total_seconds": pl.Float64(),
    "gap_seconds": pl.Float64(),
    "worker_trial_index": pl.Int64(),
    "tokens": pl.Int64(),
    "exclusive": pl.Boolean(),
    # memory
    "memory_method": pl.String(),
    "static_bytes": pl.Int64(),
    "peak_allocated_bytes": pl.Int64(),
    "peak_reserved_bytes": pl.Int64(),
    "training_bytes": pl.Int64(),
    "probe_peak_bytes": pl.Int64(),
    "probe_training_bytes": pl.Int64(),
    "weights_bytes": pl.Int64(),
    "gradient_bytes": pl.Int64(),
    "optimiser_bytes": pl.Int64(),
    "activation_bytes": pl.Int64(),
    "predicted_weights_bytes": pl.Int64(),
    "predicted_gradient_bytes": pl.Int64(),
    "predicted_optimiser_bytes": pl.Int64(),
    "predicted_activation_bytes": pl.Int64(),
    "predicted_training_bytes": pl.Int64(),
    "predicted_step_flops": pl.Int64(),  # forward and backward, of one optimiser step
    # freezing; layers counted from 0
    "n_layers": pl.Int64(),
    "frozen_layers": pl.List(pl.Int64()),
    "embeddings_frozen": pl.Boolean(),
    "trainable_parameters": pl.Int64(),
    "total_parameters": pl.Int64(),
    "backward_depth": pl.Int64(),
    "planned_backward_depth": pl.Int64(),
    "frozen_unchanged": pl.Boolean(),
    "every_trainable_got_gradient": pl.Boolean(),
    "optimiser_holds_trainable": pl.Boolean(),
    "layer_changes": pl.List(pl.Float64()),
    "switch_step": pl.Int64(),
    # recipe
    **{f"recipe_{name}": _RECIPE_DTYPES.get(t, pl.List(pl.String())) for name, t in field_types().items()},
    # inputs
    "weights": pl.String(),  # pretrained, or random ones of the true sizes
    "model_id": pl.String(),
    "model_revision": pl.String(),
    "weights_hash": pl.String(),
    "tokenizer_hash": pl.String(),
    "dataset_id": pl.String(),
    "dataset_revision": pl.String(),
    "dataset_fingerprint": pl.String(),
    "n_train": pl.Int64(),
    "n_train_available": pl.Int64(),
    "n_validation_available": pl.Int64(),
    # provenance
    "git_commit": pl.String(),
    "git_dirty": pl.Boolean(),
    "image_digest": pl.String(),
    "lfreeze_version": pl.String(),
    "python_version": pl.String(),
    "torch_version": pl.String(),
    "transformers_version": pl.String(),
    "peft_version": pl.String(),
    "ray_version": pl.String(),
    "package_versions_json": pl.String(),
    "platform": pl.String(),
    "device": pl.String(),
    "cuda_version": pl.String(),
    "cudnn_version": pl.String(),
    "driver_version": pl.String(),
    "gpu_name": pl.String(),
    "gpu_memory_bytes": pl.Int64(),
    "gpu_share": pl.Float64(),
    "cpu_model": pl.String(),
    "attention_implementation": pl.String(),
    "deterministic_algorithms": pl.Boolean(),
    # why a column above is null: no null without a reason
    "null_reasons": pl.List(pl.Struct({"column": pl.String(), "reason": pl.String()})),
}

STEP_SCHEMA: dict[str, pl.DataType] = {
    "run_id": pl.String(),
    "step": pl.Int32(),  # from 1
    "phase": pl.String(),  # "probe" before an adaptive switch, else "train"
    "loss": pl.Float64(),
    "learning_rate": pl.Float64(),
    "grad_norm": pl.Float64(),  # before clipping
    "seconds": pl.Float64(),
    "tokens": pl.Int64(),
    "timed": pl.Boolean(),  # whether the step counts for the trial's step time
}

PREDICTION_SCHEMA: dict[str, pl.DataType] = {
    "run_id": pl.String(),
    "example_id": pl.String(),
    "label": pl.Int32(),  # index into the trial's label_names
    "prediction": pl.Int32(),
    "logits": pl.List(pl.Float32()),
}

SCHEMAS = dict(zip(TABLES, (TRIAL_SCHEMA, STEP_SCHEMA, PREDICTION_SCHEMA), strict=True))
