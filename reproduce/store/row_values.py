"""The expressions that compute the columns of a trial's row."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lfreeze.cost import Cost
from lfreeze.model_shape import ShapeError
from lfreeze.models.shapes import model_shape
from lfreeze.strategy import Strategy
from reproduce.plan.spec import TrialSpec
from reproduce.store.provenance import software
from reproduce.store.trial_row import SCHEMA_VERSION, TrialRow

if TYPE_CHECKING:
    from lfreeze.data.tasks import TaskData
    from lfreeze.models.catalog import Checkpoint
    from lfreeze.training.record import TrainingRecord


def started_row(spec: TrialSpec, attempt: int) -> TrialRow:
    """The columns that are known before a trial starts."""
    strategy = Strategy.parse(spec.factors.strategy)
    inputs = spec.inputs
    return TrialRow(
        schema_version=SCHEMA_VERSION,
        run_id=spec.run_id,
        space=spec.space,
        attempt=attempt,
        strategy=strategy.name,
        kind=strategy.kind,
        ratio=float(strategy.ratio) if strategy.percent else None,
        model=spec.factors.model,
        task=spec.factors.task,
        seed=spec.factors.seed,
        grid=",".join(name for name, _ in spec.factors.grid),
        recipe=spec.recipe,
        weights=inputs.weights,
        model_id=inputs.model_id,
        model_revision=inputs.model_revision,
        weights_hash=inputs.weights_hash,
        tokenizer_hash=inputs.tokenizer_hash,
        dataset_id=inputs.dataset_id,
        dataset_revision=inputs.dataset_revision,
        dataset_fingerprint=inputs.dataset_fingerprint,
        pair_separator=inputs.pair_separator,
        **software(),
    )


def trained_row(
    row: TrialRow, spec: TrialSpec, record: TrainingRecord, checkpoint: Checkpoint, data: TaskData
) -> TrialRow:
    """The row with the columns of a finished training run."""
    low, middle, high = record.step_quartiles()
    probe = record.probe_memory
    plan, proof, memory = record.plan, record.proof, record.memory
    row = replace(
        row,
        status="ok",
        validation_accuracy=record.predictions.accuracy,
        macro_f1=record.predictions.macro_f1,
        matthews_correlation=record.predictions.matthews_correlation,
        n_validation=len(data.validation),
        majority_accuracy=data.majority_accuracy,
        label_names=tuple(data.task.labels),
        n_train=len(data.train),
        n_train_available=data.n_available,
        n_validation_available=data.n_validation_available,
        step_seconds_median=middle,
        step_seconds_q25=low,
        step_seconds_q75=high,
        seconds_per_10_steps=None if middle is None else 10 * middle,
        n_timed_steps=sum(s.timed and s.phase == "train" for s in record.steps),
        probe_step_seconds_median=record.step_quartiles("probe")[1],
        selection_seconds=record.selection_seconds,
        train_seconds=record.train_seconds,
        eval_seconds=record.eval_seconds,
        prefix_seconds=record.prefix_seconds,
        prefix_layers=record.prefix_layers,
        tokens=sum(s.tokens for s in record.steps),
        memory_method=record.memory_method,
        static_bytes=record.static_bytes,
        peak_allocated_bytes=memory.peak_allocated,
        peak_reserved_bytes=memory.peak_reserved,
        training_bytes=memory.training,
        probe_peak_bytes=probe.peak_allocated if probe else None,
        probe_training_bytes=probe.training if probe else None,
        probe_reserved_bytes=probe.peak_reserved if probe else None,
        weights_bytes=record.static_bytes,
        gradient_bytes=memory.gradient,
        optimiser_bytes=memory.optimiser,
        activation_bytes=memory.activation,
        n_layers=plan.n_layers,
        frozen_layers=tuple(plan.frozen_layers),
        embeddings_frozen=plan.embeddings_frozen,
        trainable_parameters=plan.trainable_parameters,
        total_parameters=plan.total_parameters,
        backward_depth=proof.backward_depth,
        planned_backward_depth=plan.backward_depth,
        frozen_unchanged=proof.frozen_unchanged,
        every_trainable_got_gradient=proof.every_trainable_got_gradient,
        optimiser_holds_trainable=proof.optimiser_holds_trainable,
        layer_changes=tuple(plan.layer_changes) if plan.layer_changes else None,
        switch_step=record.switch_step,
        redraws=record.redraws,
        lora_targets=plan.adapted or None,
    )
    cost = _predicted(spec, record, checkpoint, data)
    if cost is None:
        return row
    return replace(
        row,
        predicted_weights_bytes=cost.weights_bytes,
        predicted_gradient_bytes=cost.gradient_bytes,
        predicted_optimiser_bytes=cost.optimiser_bytes,
        predicted_activation_bytes=cost.activation_bytes,
        predicted_training_bytes=cost.training_bytes,
        predicted_step_flops=cost.forward_flops + cost.backward_flops,
    )


def failed_row(row: TrialRow, status: str, error_type: str, message: str) -> TrialRow:
    """The row of a trial that did not finish, with the first 2,000 characters of the message."""
    return replace(row, status=status, error_type=error_type, error_message=message.strip()[:2000])


def _predicted(
    spec: TrialSpec, record: TrainingRecord, checkpoint: Checkpoint, data: TaskData
) -> Cost | None:
    """The cost in closed form: work at the mean length of the batches, memory of the largest micro-batch; None without one."""
    recipe, parsed, n_labels = spec.recipe, Strategy.parse(spec.factors.strategy), len(data.task.labels)
    per_step = sum(s.tokens for s in record.steps) / len(record.steps)
    examples, length = record.largest_micro_batch
    if recipe.padding == "packed":
        # One row holds all examples.
        examples = recipe.micro_batch_size or recipe.batch_size
        length = round(length / examples)
    part = replace(recipe, batch_size=examples, micro_batch_size=0)
    device = "cpu" if record.memory.peak_reserved is None else "cuda"
    try:
        shape = model_shape(checkpoint.config, device)
        work = parsed.cost(shape, recipe, n_labels=n_labels, length=round(per_step / recipe.batch_size))
        memory = parsed.cost(shape, part, n_labels=n_labels, length=length)
    except ShapeError:
        return None
    return replace(
        memory,
        forward_flops=work.forward_flops,
        backward_flops=work.backward_flops,
        accumulated=examples < recipe.batch_size,
    )
