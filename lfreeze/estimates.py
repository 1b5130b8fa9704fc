"""What strategies would cost on a model, from its configuration alone: memory and FLOPs of a training step.

Sizes and costs are those of ``lfreeze.models.shapes`` and ``lfreeze.cost``, as in the experiment's plans.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lfreeze.cost import Cost
from lfreeze.errors import InputError
from lfreeze.models.catalog import get_model
from lfreeze.models.files import ModelError, read_config
from lfreeze.models.formats import require_full_precision
from lfreeze.models.shapes import model_shape
from lfreeze.recipe import Recipe, RecipeError
from lfreeze.strategy import Strategy, kinds

DEVICES = ("cuda", "cpu")
DEFAULT_STRATEGIES = ("ALL", "LoRA", "BOT25", "BOT50")


@dataclass(frozen=True)
class StrategyEstimate:
    """The predicted cost of one strategy; memory in bytes, for the phase that needs the most.

    Attributes:
        trainable_parameters: elements that train.
        backward_depth: layers that the backward pass crosses, counted from the output.
        static_bytes: the weights.
        gradient_bytes, optimiser_bytes, activation_bytes: parts of ``training_bytes``, at different moments.
        training_bytes: the peak above the weights.
        peak_bytes: the weights and the peak above them.
        step_flops: floating-point operations of one optimiser step, once layers are selected.
        training_saved, peak_saved, flops_saved: percent of what full fine-tuning needs; negative for more.
    """

    strategy: str
    trainable_parameters: int
    backward_depth: int
    static_bytes: int
    gradient_bytes: int
    optimiser_bytes: int
    activation_bytes: int
    training_bytes: int
    peak_bytes: int
    step_flops: int
    training_saved: float
    peak_saved: float
    flops_saved: float


@dataclass(frozen=True)
class Estimate:
    """The predicted cost of strategies on one model.

    Attributes:
        model: as it was named.
        model_type: transformers' name of the architecture.
        causal_lm: whether it is a causal language model, and not a sequence classifier.
        total_parameters: of the model without adapters.
        strategies: in the order in which they were given.
    """

    model: str
    model_type: str
    causal_lm: bool
    n_layers: int
    total_parameters: int
    batch_size: int
    max_length: int
    precision: str
    device: str
    strategies: tuple[StrategyEstimate, ...]


def estimate(
    model: str | Path | Mapping[str, Any],
    strategies: Iterable[str | Strategy] = DEFAULT_STRATEGIES,
    *,
    batch_size: int,
    max_length: int,
    causal_lm: bool = False,
    n_labels: int = 2,
    device: str = "cuda",
    **recipe: Any,
) -> Estimate:
    """Predict memory and FLOPs of training steps, without weights and without training.

    A step has ``batch_size`` texts of ``max_length`` tokens each and AdamW's update. Memory is what torch's
    allocator holds: what CUDA itself takes, about half a GiB, and fragmentation come on top. A language model
    is trained on transformers' own loss, whose logits are not kept for longer than the loss needs them.

    Args:
        model: a hub identifier (``org/name``, ``org/name@revision``), a folder with a ``config.json``, such a
            file, or its content. Weights are neither read nor downloaded.
        strategies: names such as ``"BOT50"``.
        batch_size: texts in one step.
        max_length: tokens of each text.
        causal_lm: a causal language model, head and logits included, instead of a sequence classifier.
        n_labels: of a classifier.
        device: type of the device that trains, ``"cuda"`` or ``"cpu"``.
        recipe: further values of ``lfreeze.Recipe`` on which the cost depends: ``precision`` (``"bf16-mixed"``),
            ``frozen_dtype``, ``freeze_embeddings``, ``lora_rank`` (8) and ``lora_targets``.

    Raises:
        InputError: the model has no usable configuration, its architecture cannot be frozen, a strategy is
            unknown or does not fit it, a value is out of range, or the model has too few positions.
    """
    if device not in DEVICES:
        raise InputError(f"device = {device!r} is not one of {', '.join(DEVICES)}")
    if type(n_labels) is not int or n_labels < 1:
        raise InputError(f"n_labels = {n_labels!r} is not a whole number above 0")
    values = _recipe(recipe, batch_size, max_length)
    parsed = [s if isinstance(s, Strategy) else Strategy.parse(s) for s in strategies]
    if not parsed:
        raise InputError(f"no strategy is named; examples are {', '.join(DEFAULT_STRATEGIES)}")
    name, config = read_model(model)
    shape = model_shape(config, device, causal_lm=causal_lm)
    if shape.max_positions is not None and max_length > shape.max_positions:
        raise InputError(
            f"max_length = {max_length} is above the {shape.max_positions} positions of the model {name}"
        )

    def costs(strategy: Strategy) -> tuple[Cost, Cost]:
        strategy.frozen_count(shape.n_layers)
        step = strategy.cost(shape, values, n_labels=n_labels, length=max_length)
        peak = strategy.peak_cost(shape, values, n_labels=n_labels, length=max_length)
        return step, _with_update(peak, device)

    baseline = costs(Strategy.parse(next(label for label, kind in kinds().items() if kind.baseline)))
    return Estimate(
        model=name,
        model_type=shape.model_type,
        causal_lm=causal_lm,
        n_layers=shape.n_layers,
        total_parameters=shape.parameters(n_labels),
        batch_size=batch_size,
        max_length=max_length,
        precision=values.precision,
        device=device,
        strategies=tuple(_estimate(strategy.name, *costs(strategy), *baseline) for strategy in parsed),
    )


def read_model(model: str | Path | Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """A model's name and the content of its ``config.json``.

    Raises:
        InputError: there is none, it names no architecture, or its weights are quantised or an adapter's.
    """
    if isinstance(model, Mapping):
        name, config = str(model.get("_name_or_path") or model.get("model_type")), model
    else:
        path = Path(model).expanduser()
        if path.is_file():
            name, config = str(model), read_config(str(model), path)
        else:
            # A folder in the working directory looks like a name.
            card = get_model(str(path.resolve()) if path.is_dir() else str(model))
            name, config = str(model), card.config
    if not isinstance(config.get("model_type"), str):
        raise ModelError(
            f"model {name}: its configuration has no model_type, which names the architecture, such as 'llama'"
        )
    require_full_precision(name, config)
    return name, config


def _recipe(chosen: Mapping[str, Any], batch_size: int, max_length: int) -> Recipe:
    """A recipe with the chosen values; no cost depends on the others."""
    allowed = ("precision", "frozen_dtype", "freeze_embeddings", "lora_rank", "lora_targets")
    for name in chosen:
        if name not in allowed:
            raise RecipeError(f"unknown option {name!r} of an estimate; known are {', '.join(allowed)}")
    others = {
        "steps": 1, "learning_rate": 0.0, "schedule": "constant", "lora_alpha": 1, "lora_dropout": 0.0,
        "max_train_examples": 1, "probe_steps": 1, "lora_rank": 8,
    }  # fmt: skip
    return Recipe.from_mapping({**others, **chosen, "batch_size": batch_size, "max_length": max_length})


def _with_update(cost: Cost, device: str) -> Cost:
    """The cost with what AdamW's update allocates: on the CPU two values for each element of one tensor."""
    update = 2 * cost.largest_gradient if device == "cpu" else 0
    return replace(cost, beside_gradients=max(cost.beside_gradients, update))


def _estimate(name: str, step: Cost, peak: Cost, full_step: Cost, full_peak: Cost) -> StrategyEstimate:
    held, full = _peak(peak), _peak(full_peak)
    return StrategyEstimate(
        strategy=name,
        trainable_parameters=step.trainable_parameters,
        backward_depth=step.backward_depth,
        static_bytes=peak.weights_bytes,
        gradient_bytes=peak.gradient_bytes,
        optimiser_bytes=peak.optimiser_bytes,
        activation_bytes=peak.activation_bytes,
        training_bytes=peak.training_bytes,
        peak_bytes=held,
        step_flops=_flops(step),
        training_saved=_saved(peak.training_bytes, full_peak.training_bytes),
        peak_saved=_saved(held, full),
        flops_saved=_saved(_flops(step), _flops(full_step)),
    )


def _peak(cost: Cost) -> int:
    return cost.weights_bytes + cost.training_bytes


def _flops(cost: Cost) -> int:
    return cost.forward_flops + cost.backward_flops


def _saved(value: int, full: int) -> float:
    return 100 * (1 - value / full)
