"""``freeze(model, "BOT50")``: which parameters train, and a printable plan of it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from lfreeze.blocks import Parts, model_parts
from lfreeze.strategy import Strategy, StrategyError


@dataclass(frozen=True, kw_only=True)
class FreezeOptions:
    """Decisions that a strategy's name leaves open (README, "What the paper leaves open").

    Attributes:
        freeze_embeddings: ``"auto"`` freezes them for BOT and LoRA only; ``"yes"``, ``"no"``.
        frozen_dtype: type to store the linear weights of frozen layers in, or None to leave them.
        probe_steps: optimiser steps before an adaptive strategy selects its layers (§3.2).
        seed: for strategies that select at random.
    """

    freeze_embeddings: str = "auto"
    frozen_dtype: torch.dtype | None = None
    probe_steps: int = 5
    seed: int = 0
    lora_rank: int = 8
    lora_alpha: int = 32
    lora_dropout: float = 0.1
    lora_targets: tuple[str, ...] = ("q_proj", "v_proj")

    def __post_init__(self) -> None:
        if self.freeze_embeddings not in ("auto", "yes", "no"):
            raise StrategyError(f"freeze_embeddings = {self.freeze_embeddings!r} is not one of auto, yes, no")
        for name in ("probe_steps", "lora_rank", "lora_alpha"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise StrategyError(f"{name} = {value!r} is not a whole number above 0")
        targets = self.lora_targets
        if isinstance(targets, str) or not targets or not all(isinstance(t, str) for t in targets):
            raise StrategyError(f"lora_targets = {targets!r} is not a list of names")


def parse_options(options: Mapping[str, Any]) -> FreezeOptions:
    """Keyword arguments as ``FreezeOptions``.

    Raises:
        StrategyError: one of them is unknown or has a value that cannot be used.
    """
    known = [f.name for f in dataclasses.fields(FreezeOptions)]
    for name in options:
        if name not in known:
            raise StrategyError(f"unknown option {name!r}; known are {', '.join(known)}")
    return FreezeOptions(**options)


def as_strategy(strategy: str | Strategy) -> Strategy:
    """A strategy, or its name, as a strategy.

    Raises:
        StrategyError: it is neither, or no strategy has this name.
    """
    if isinstance(strategy, str):
        return Strategy.parse(strategy)
    if not isinstance(strategy, Strategy):
        raise StrategyError(f"a strategy is a name such as 'BOT50', not {strategy!r}")
    return strategy


class Controller(Protocol):
    """What a strategy does during training; called after each optimiser step."""

    def step(self, optimizer: torch.optim.Optimizer) -> FreezePlan | None:
        """Act on the step just taken; the new plan if what trains has changed."""


@dataclass(frozen=True)
class FreezePlan:
    """What trains and what does not; layers are counted from 0 at the input.

    Attributes:
        frozen_layers: layers of which no parameter trains, ascending.
        backward_depth: layers that the backward pass crosses, counted from the output.
        layer_changes: mean L2 norm of the weight change by layer, for adaptive strategies.
    """

    strategy: str
    n_layers: int
    frozen_layers: tuple[int, ...]
    embeddings_frozen: bool
    trainable_parameters: int
    total_parameters: int
    backward_depth: int
    layer_changes: tuple[float, ...] | None = None

    def __str__(self) -> str:
        frozen = set(self.frozen_layers)
        marks = "".join("■" if i in frozen else "□" for i in range(self.n_layers))
        listed = ", ".join(str(i + 1) for i in self.frozen_layers) or "none"
        share = self.trainable_parameters / self.total_parameters
        return "\n".join(
            [
                f"{self.strategy}: {len(frozen)} of {self.n_layers} layers frozen",
                f"  layers      {marks}  input to output, ■ frozen, □ trains",
                f"  frozen      {listed}  (counted from 1)",
                f"  embeddings  {'frozen' if self.embeddings_frozen else 'train'}",
                f"  parameters  {self.trainable_parameters:,} of {self.total_parameters:,} train ({share:.1%})",
                f"  backward    crosses {self.backward_depth} of {self.n_layers} layers",
            ]
        )


def freeze(model: nn.Module, strategy: str | Strategy, **options: object) -> FreezePlan:
    """Freeze a model in place for fine-tuning; call it before making the optimiser.

    Keyword arguments are those of ``FreezeOptions``. LoRA injects its adapters in place.

    Raises:
        StrategyError: an unknown strategy, one that does not fit the model, one that selects its
            layers during training (use ``AdaptiveFreezing``), or a sharded model.
    """
    if not isinstance(model, nn.Module):
        raise StrategyError(f"freeze takes a model (torch.nn.Module), not {model!r}")
    strategy = as_strategy(strategy)
    if strategy.implementation.adaptive:
        raise StrategyError(
            f"strategy {strategy.name} selects its layers during training: "
            f"use AdaptiveFreezing(model, {strategy.name!r}) and call its step(optimizer) after each optimizer.step()"
        )
    return prepare(model, strategy, parse_options(options))


def prepare(model: nn.Module, strategy: Strategy, options: FreezeOptions) -> FreezePlan:
    """Set what trains from the start: what the strategy's kind sets itself, or else the layers it selects."""
    _refuse_sharded(model)
    _refuse_adapters(model)
    plan = strategy.implementation.prepare(model, strategy, options)
    if plan is not None:
        return plan
    n_layers = len(model_parts(model).layers)
    return set_trainable(model, strategy, strategy.frozen_layers(n_layers, options.seed), options)


def set_trainable(
    model: nn.Module, strategy: Strategy, frozen_layers: Collection[int], options: FreezeOptions
) -> FreezePlan:
    """Freeze exactly the given layers, and the embeddings if the options say so.

    The final norm and the head always train. Gradients of what is frozen are dropped.
    """
    parts = model_parts(model)
    automatic = strategy.implementation.freezes_embeddings
    frozen_embeddings = options.freeze_embeddings == "yes" or (
        options.freeze_embeddings == "auto" and automatic
    )
    frozen = {id(p) for i in frozen_layers for p in parts.layers[i].parameters()}
    if frozen_embeddings:
        frozen |= {id(p) for p in parts.embeddings}
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(id(parameter) not in frozen)
        if id(parameter) in frozen:
            parameter.grad = None
    store_frozen_linears(parts, options)
    return describe(model, strategy)


def describe(model: nn.Module, strategy: Strategy) -> FreezePlan:
    """The plan that a model's ``requires_grad`` flags amount to."""
    parts = model_parts(model)
    training = [any(p.requires_grad for p in layer.parameters()) for layer in parts.layers]
    embeddings_train = any(p.requires_grad for p in parts.embeddings)
    return FreezePlan(
        strategy=strategy.name,
        n_layers=len(training),
        frozen_layers=tuple(i for i, trains in enumerate(training) if not trains),
        embeddings_frozen=not embeddings_train,
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        total_parameters=sum(p.numel() for p in model.parameters()),
        backward_depth=_backward_depth(training, embeddings_train),
    )


def sync_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Make an optimiser hold exactly the trainable parameters; what stays keeps its moments.

    Parameters that became frozen leave with their state and their gradient, so that no later
    step can move them. Ones that newly train join the first group.
    """
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if p.requires_grad]
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for parameter in [p for p in optimizer.state if id(p) not in held]:
        parameter.grad = None
        del optimizer.state[parameter]
    fresh = [p for p in model.parameters() if p.requires_grad and id(p) not in held]
    optimizer.param_groups[0]["params"].extend(fresh)


def _backward_depth(training: list[bool], embeddings_train: bool) -> int:
    if embeddings_train:
        return len(training)
    return len(training) - training.index(True) if any(training) else 0


def store_frozen_linears(parts: Parts, options: FreezeOptions) -> None:
    """Store the layers' frozen linear weights as autocast would use them: same products, less memory.

    Norms keep their type, since autocast computes them in float32.
    """
    if options.frozen_dtype is None:
        return
    for layer in parts.layers:
        for module in layer.modules():
            if isinstance(module, nn.Linear):
                for parameter in module.parameters(recurse=False):
                    if not parameter.requires_grad:
                        parameter.data = parameter.data.to(options.frozen_dtype)


def _refuse_sharded(model: nn.Module) -> None:
    for parameter in model.parameters():
        kind = type(parameter).__name__
        if hasattr(parameter, "ds_id") or kind in ("DTensor", "FlatParameter") or _is_dtensor(parameter):
            raise StrategyError(
                f"{type(model).__name__} is sharded ({kind}); freezing under ZeRO-3 or FSDP is not supported: "
                "freeze the model before it is sharded, or train it unsharded"
            )


def _refuse_adapters(model: nn.Module) -> None:
    """To freeze is to decide for every parameter: it would set free the base under the adapters."""
    tuners = sys.modules.get("peft.tuners.tuners_utils")
    if tuners and any(isinstance(module, tuners.BaseTunerLayer) for module in model.modules()):
        raise StrategyError(
            f"{type(model).__name__} holds adapters already: give freeze a model without them "
            "(the strategy LoRA adds its own)"
        )


def _is_dtensor(parameter: nn.Parameter) -> bool:
    return hasattr(parameter.data, "placements") and hasattr(parameter.data, "device_mesh")
