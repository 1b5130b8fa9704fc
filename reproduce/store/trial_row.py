"""A trial's row, whose fields are the table of the contract's columns.

No other place describes a column. To add one, add a field to ``TrialRow`` (``since``: the schema version that
introduces it) and the expression of its value to ``reproduce.store.row_values``.

Times are in seconds, memory in bytes, accuracies and shares are fractions of 1, layers count from 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

import polars as pl

from lfreeze.recipe import Recipe
from reproduce.store.columns import RECIPE_GROUP, WORDS, Column, StoreError, columns_of

_SUCCEEDED = "the trial succeeded"
_NOT_ADAPTIVE = "the strategy is not adaptive"
_NOT_TIMED = "no step was timed"
_NO_TIMED_PROBE = "the strategy is not adaptive, or no step of its probe was timed"
_NO_GPU = "no GPU was used"
_NO_ALLOCATOR = "the CPU has no caching allocator"
_LOCAL = "not read from the hub; identified by its hash"
_NO_CLOSED_FORM = "no closed form of this architecture's memory"
_NO_COMMIT = "neither a git checkout nor a wheel built from one"
_NOT_WRITTEN = "the trial has no files"
# The status of a trial that does not fit the GPUs at hand; it runs where it fits.
SKIPPED = "skipped"
STATUSES = ("ok", "oom", "error", "timeout", SKIPPED)
_REASONS = pl.List(pl.Struct({"column": pl.String(), "reason": pl.String()}))


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One trial: what ran, where, and what came of it. A null has its reason in ``null_reasons``."""

    # identity
    schema_version: Annotated[int, Column("Identity", dtype=pl.Int32())]
    run_id: Annotated[str, Column("Identity")]
    space: Annotated[str, Column("Identity")]
    attempt: Annotated[int, Column("Identity", dtype=pl.Int32())]
    started_at: Annotated[datetime | None, Column("Identity")] = None
    finished_at: Annotated[datetime | None, Column("Identity")] = None
    # factors; ratio is the frozen fraction of the layers in the strategy's name
    strategy: Annotated[str, Column("Factors")]
    kind: Annotated[str, Column("Factors")]
    ratio: Annotated[float | None, Column("Factors", unit="1", reason="the strategy has no ratio")] = None
    model: Annotated[str, Column("Factors")]
    task: Annotated[str, Column("Factors")]
    seed: Annotated[int, Column("Factors")]
    # names of the recipe values that the space's grid varies, with commas between them
    grid: Annotated[str, Column("Factors", since=6, older="")] = ""
    # outcome: status is one of STATUSES
    status: Annotated[str | None, Column("Outcome")] = None
    error_type: Annotated[str | None, Column("Outcome", reason=_SUCCEEDED)] = None
    error_message: Annotated[str | None, Column("Outcome", reason=_SUCCEEDED)] = None
    # accuracy, as fractions of 1
    validation_accuracy: Annotated[float | None, Column("Accuracy", unit="1", verify="result")] = None
    # the mean F1 of the labels
    macro_f1: Annotated[float | None, Column("Accuracy", unit="1", since=6)] = None
    # from -1 to 1
    matthews_correlation: Annotated[float | None, Column("Accuracy", unit="1", since=6)] = None
    n_validation: Annotated[int | None, Column("Accuracy")] = None
    majority_accuracy: Annotated[float | None, Column("Accuracy", unit="1")] = None
    label_names: Annotated[tuple[str, ...] | None, Column("Accuracy")] = None
    # speed: over the timed steps of the final phase
    step_seconds_median: Annotated[float | None, Column("Speed", unit="s", reason=_NOT_TIMED)] = None
    step_seconds_q25: Annotated[float | None, Column("Speed", unit="s", reason=_NOT_TIMED)] = None
    step_seconds_q75: Annotated[float | None, Column("Speed", unit="s", reason=_NOT_TIMED)] = None
    seconds_per_10_steps: Annotated[float | None, Column("Speed", unit="s", reason=_NOT_TIMED)] = None
    n_timed_steps: Annotated[int | None, Column("Speed")] = None
    probe_step_seconds_median: Annotated[float | None, Column("Speed", unit="s", reason=_NO_TIMED_PROBE)] = (
        None
    )
    selection_seconds: Annotated[float | None, Column("Speed", unit="s")] = None
    setup_seconds: Annotated[float | None, Column("Speed", unit="s")] = None
    train_seconds: Annotated[float | None, Column("Speed", unit="s")] = None
    eval_seconds: Annotated[float | None, Column("Speed", unit="s")] = None
    # the part of training and evaluation that computed the output of frozen layers to reuse it
    prefix_seconds: Annotated[float | None, Column("Speed", unit="s", since=5, older=0.0)] = None
    # frozen layers whose output training reused
    prefix_layers: Annotated[int | None, Column("Speed", since=5, older=0)] = None
    total_seconds: Annotated[float | None, Column("Speed", unit="s")] = None
    gap_seconds: Annotated[
        float | None, Column("Speed", unit="s", reason="the first trial of its worker")
    ] = None
    worker_trial_index: Annotated[int | None, Column("Speed")] = None
    tokens: Annotated[int | None, Column("Speed")] = None
    exclusive: Annotated[bool | None, Column("Speed", origin=("Measuring", "device to itself"))] = None
    # memory
    memory_method: Annotated[str | None, Column("Memory", origin=("Measuring", "memory measured by"))] = None
    static_bytes: Annotated[int | None, Column("Memory", unit="B", verify="memory", tolerance=0.01)] = None
    peak_allocated_bytes: Annotated[int | None, Column("Memory", unit="B")] = None
    # of the phase after the switch, as training_bytes; before schema version 4, an adaptive trial's included
    # what the probe had left in the allocator's cache
    peak_reserved_bytes: Annotated[int | None, Column("Memory", unit="B", reason=_NO_ALLOCATOR)] = None
    training_bytes: Annotated[int | None, Column("Memory", unit="B", verify="memory", tolerance=0.05)] = None
    probe_peak_bytes: Annotated[int | None, Column("Memory", unit="B", reason=_NOT_ADAPTIVE)] = None
    probe_training_bytes: Annotated[int | None, Column("Memory", unit="B", reason=_NOT_ADAPTIVE)] = None
    probe_reserved_bytes: Annotated[
        int | None, Column("Memory", unit="B", reason=f"{_NOT_ADAPTIVE}, or {_NO_ALLOCATOR}", since=4)
    ] = None
    weights_bytes: Annotated[int | None, Column("Memory", unit="B")] = None
    gradient_bytes: Annotated[int | None, Column("Memory", unit="B")] = None
    optimiser_bytes: Annotated[int | None, Column("Memory", unit="B")] = None
    activation_bytes: Annotated[int | None, Column("Memory", unit="B")] = None
    predicted_weights_bytes: Annotated[int | None, Column("Memory", unit="B", reason=_NO_CLOSED_FORM)] = None
    predicted_gradient_bytes: Annotated[int | None, Column("Memory", unit="B", reason=_NO_CLOSED_FORM)] = None
    predicted_optimiser_bytes: Annotated[int | None, Column("Memory", unit="B", reason=_NO_CLOSED_FORM)] = (
        None
    )
    predicted_activation_bytes: Annotated[int | None, Column("Memory", unit="B", reason=_NO_CLOSED_FORM)] = (
        None
    )
    predicted_training_bytes: Annotated[int | None, Column("Memory", unit="B", reason=_NO_CLOSED_FORM)] = None
    # forward and backward pass of one optimiser step
    predicted_step_flops: Annotated[
        int | None, Column("Memory", unit="FLOP", reason=_NO_CLOSED_FORM, since=2)
    ] = None
    # freezing; layers count from 0
    n_layers: Annotated[int | None, Column("Freezing")] = None
    frozen_layers: Annotated[tuple[int, ...] | None, Column("Freezing", verify="result")] = None
    embeddings_frozen: Annotated[bool | None, Column("Freezing")] = None
    trainable_parameters: Annotated[int | None, Column("Freezing")] = None
    total_parameters: Annotated[int | None, Column("Freezing")] = None
    backward_depth: Annotated[int | None, Column("Freezing")] = None
    planned_backward_depth: Annotated[int | None, Column("Freezing")] = None
    frozen_unchanged: Annotated[bool | None, Column("Freezing")] = None
    every_trainable_got_gradient: Annotated[bool | None, Column("Freezing")] = None
    optimiser_holds_trainable: Annotated[bool | None, Column("Freezing")] = None
    layer_changes: Annotated[
        tuple[float, ...] | None, Column("Freezing", reason=_NOT_ADAPTIVE, verify="result")
    ] = None
    switch_step: Annotated[int | None, Column("Freezing", reason=_NOT_ADAPTIVE)] = None
    # how often other layers were drawn; frozen_layers are the last ones
    redraws: Annotated[int | None, Column("Freezing", since=6, older=0)] = None
    # the names of the linear maps that have an adapter
    lora_targets: Annotated[
        tuple[str, ...] | None, Column("Freezing", reason="the strategy has no adapters", since=6)
    ] = None
    # one column recipe_<name> for each value of the recipe
    recipe: Annotated[Recipe, Column(RECIPE_GROUP)]
    # inputs
    # pretrained, or random weights of the true sizes
    weights: Annotated[str, Column("Inputs", verify="inputs", since=2, older="pretrained")]
    model_id: Annotated[str, Column("Inputs")]
    model_revision: Annotated[str | None, Column("Inputs", reason=_LOCAL)] = None
    weights_hash: Annotated[str, Column("Inputs", verify="inputs")]
    tokenizer_hash: Annotated[str, Column("Inputs", verify="inputs")]
    dataset_id: Annotated[str, Column("Inputs")]
    dataset_revision: Annotated[str | None, Column("Inputs", reason=_LOCAL)] = None
    dataset_fingerprint: Annotated[str, Column("Inputs", verify="inputs")]
    # the text between the two texts of a pair
    pair_separator: Annotated[str | None, Column("Inputs", since=6)] = None
    n_train: Annotated[int | None, Column("Inputs")] = None
    n_train_available: Annotated[int | None, Column("Inputs", since=2)] = None
    n_validation_available: Annotated[int | None, Column("Inputs", since=2)] = None
    # provenance
    git_commit: Annotated[
        str | None, Column("Provenance", reason=_NO_COMMIT, origin=("Software", "git commit"), verify="code")
    ] = None
    git_dirty: Annotated[
        bool | None,
        Column("Provenance", reason=_NO_COMMIT, origin=("Software", "uncommitted changes"), verify="code"),
    ] = None
    image_digest: Annotated[
        str | None,
        Column(
            "Provenance",
            reason="LFREEZE_IMAGE_DIGEST is not set",
            origin=("Software", "container image"),
            verify="code",
        ),
    ] = None
    lfreeze_version: Annotated[
        str | None, Column("Provenance", origin=("Software", "lfreeze"), verify="code")
    ] = None
    python_version: Annotated[
        str | None, Column("Provenance", origin=("Software", "Python"), verify="versions")
    ] = None
    torch_version: Annotated[str | None, Column("Provenance", origin=("Software", "PyTorch"))] = None
    transformers_version: Annotated[str | None, Column("Provenance", origin=("Software", "Transformers"))] = (
        None
    )
    peft_version: Annotated[str | None, Column("Provenance", origin=("Software", "PEFT"))] = None
    ray_version: Annotated[
        str | None, Column("Provenance", reason="Ray is not installed", origin=("Software", "Ray"))
    ] = None
    package_versions_json: Annotated[str | None, Column("Provenance", verify="versions")] = None
    platform: Annotated[
        str | None, Column("Provenance", origin=("Hardware", "platform"), verify="hardware")
    ] = None
    device: Annotated[str | None, Column("Provenance", origin=("Hardware", "device"), verify="hardware")] = (
        None
    )
    cuda_version: Annotated[
        str | None, Column("Provenance", reason=_NO_GPU, origin=("Hardware", "CUDA"), verify="versions")
    ] = None
    cudnn_version: Annotated[
        str | None, Column("Provenance", reason=_NO_GPU, origin=("Hardware", "cuDNN"), verify="versions")
    ] = None
    driver_version: Annotated[
        str | None, Column("Provenance", reason=_NO_GPU, origin=("Hardware", "driver"), verify="versions")
    ] = None
    gpu_name: Annotated[
        str | None, Column("Provenance", reason=_NO_GPU, origin=("Hardware", "GPU"), verify="hardware")
    ] = None
    gpu_memory_bytes: Annotated[
        int | None, Column("Provenance", unit="B", reason=_NO_GPU, origin=("Hardware", "GPU memory"))
    ] = None
    gpu_share: Annotated[
        float | None,
        Column("Provenance", unit="1", reason=_NO_GPU, origin=("Hardware", "share of a GPU per trial")),
    ] = None
    cpu_model: Annotated[str | None, Column("Provenance", origin=("Hardware", "CPU"), verify="hardware")] = (
        None
    )
    attention_implementation: Annotated[
        str | None, Column("Provenance", origin=("Measuring", "attention"), verify="hardware")
    ] = None
    # true only if torch refused all others; before schema version 4, also if it only warned
    deterministic_algorithms: Annotated[
        bool | None, Column("Provenance", origin=("Measuring", "deterministic algorithms"))
    ] = None
    # SHA-256 of the trial's content, see reproduce.store.checksums; set when the files are written
    row_checksum: Annotated[str | None, Column("Integrity", since=6)] = None
    steps_checksum: Annotated[str | None, Column("Integrity", reason=_NOT_WRITTEN, since=6)] = None
    predictions_checksum: Annotated[str | None, Column("Integrity", reason=_NOT_WRITTEN, since=6)] = None
    evaluations_checksum: Annotated[
        str | None, Column("Integrity", reason="no evaluations during training", since=6)
    ] = None
    # by column: why it is null, where the table's own reason does not apply
    null_reasons: Annotated[Mapping[str, str], Column("", dtype=_REASONS)] = field(default_factory=dict)

    @classmethod
    def from_columns(cls, values: Mapping[str, Any]) -> TrialRow:
        """The row whose ``columns`` these are.

        Raises:
            StoreError: a column is unknown.
        """
        unknown = sorted(set(values) - set(TRIAL_COLUMNS))
        if unknown:
            raise StoreError(f"a trial row has no column {', '.join(unknown)}")
        recipe = {name.removeprefix("recipe_"): value for name, value in values.items() if _is_recipe(name)}
        recipe |= {name: word for name, (word, _) in WORDS.items() if recipe[name] is None}
        rest = {name: _frozen(value) for name, value in values.items() if not _is_recipe(name)}
        rest["null_reasons"] = {entry["column"]: entry["reason"] for entry in values["null_reasons"]}
        return cls(recipe=Recipe.from_mapping(recipe), **rest)

    def columns(self) -> dict[str, Any]:
        """Every column's value by name, in order, with the reason of each null as far as there is one."""
        values: dict[str, Any] = {}
        for each in dataclasses.fields(self):
            if each.name == "recipe":
                recipe = dataclasses.asdict(self.recipe)
                recipe |= {name: None for name, (word, _) in WORDS.items() if recipe[name] == word}
                values |= {f"recipe_{name}": value for name, value in recipe.items()}
            else:
                values[each.name] = getattr(self, each.name)
        reasons = {name: self._reason(name) for name, value in values.items() if value is None}
        values["null_reasons"] = [{"column": name, "reason": why} for name, why in reasons.items() if why]
        return values

    def _reason(self, name: str) -> str | None:
        failed = None if self.status in (None, "ok") else f"the trial ended with status {self.status}"
        if self.status == SKIPPED:
            failed = "the trial was skipped"
        return self.null_reasons.get(name) or TRIAL_COLUMNS[name].reason or failed


TRIAL_COLUMNS: dict[str, Column] = columns_of(TrialRow)
# A program reads the files of this version and of every lower one.
SCHEMA_VERSION = max(column.since for column in TRIAL_COLUMNS.values())


def _is_recipe(name: str) -> bool:
    return name.startswith("recipe_")


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
