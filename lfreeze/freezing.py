"""``freeze(model, "BOT50")``: which parameters train, and a printable plan of it."""

from __future__ import annotations

import sys
from collections.abc import Collection

import torch
from torch import nn

from lfreeze.blocks import Parts, model_parts
from lfreeze.errors import StrategyError
from lfreeze.plan import FreezeOptions, FreezePlan, parse_options
from lfreeze.strategy import Strategy


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
    frozen = {id(p) for i in frozen_layers for p in parts.layers[i].parameters()}
    if strategy.implementation.embeddings_frozen(options.freeze_embeddings):
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
