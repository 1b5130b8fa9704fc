"""``freeze(model, "BOT50")``: set which parameters train, and return a printable plan."""

from __future__ import annotations

import sys
from collections.abc import Collection

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lfreeze.blocks import Parts, backward_depth, model_parts, observe_example
from lfreeze.errors import StrategyError
from lfreeze.plan import FreezeOptions, FreezePlan, parse_options
from lfreeze.quantization import count_parameters, quantised_classes
from lfreeze.strategy import Strategy


def as_strategy(strategy: str | Strategy) -> Strategy:
    """Return a strategy unchanged, or parse its name.

    Raises:
        StrategyError: it is neither, or no strategy has this name.
    """
    if isinstance(strategy, str):
        return Strategy.parse(strategy)
    if not isinstance(strategy, Strategy):
        raise StrategyError(f"a strategy is a name such as 'BOT50', not {strategy!r}")
    return strategy


def freeze(model: nn.Module, strategy: str | Strategy, **options: object) -> FreezePlan:
    """Freeze a model in place for fine-tuning; call it before you create the optimiser.

    Keyword arguments are those of ``lfreeze.plan.FreezeOptions``. LoRA injects its adapters in place. The
    final norm and the head always train, except for an output head whose weight is that of frozen
    embeddings: the plan names it as tied.

    Raises:
        StrategyError: the strategy is unknown, does not fit the model, selects its layers during
            training (use ``AdaptiveFreezing``), or needs a package that is not installed; or the model
            is sharded, has adapters already, has quantised weights that the strategy would train, has
            several stacks of layers of which none is chosen, or does not show what runs before its layers.
    """
    if not isinstance(model, nn.Module):
        raise StrategyError(f"freeze expects a model (torch.nn.Module), not {model!r}")
    strategy = as_strategy(strategy)
    if strategy.implementation.adaptive:
        raise StrategyError(
            f"strategy {strategy.name} selects its layers during training: "
            f"use AdaptiveFreezing(model, {strategy.name!r}) and call its step(optimizer) after each optimizer.step()"
        )
    return prepare(model, strategy, parse_options(options))


def prepare(model: nn.Module, strategy: Strategy, options: FreezeOptions) -> FreezePlan:
    """Set what trains from the start: by the kind's own ``prepare``, or else by the layers it selects.

    Raises:
        StrategyError: as ``freeze``.
    """
    _refuse_sharded(model)
    absent = next((name for name, p in model.named_parameters() if p.is_meta), None)
    if absent and strategy.implementation.adaptive:
        raise StrategyError(
            f"strategy {strategy.name} compares weights, but {absent} is on the meta device or offloaded: "
            "load the whole model onto its device"
        )
    if any(isinstance(module, DistributedDataParallel) for module in model.modules()):
        raise StrategyError(
            "DistributedDataParallel has already prepared for the parameters that trained when it was created: "
            "freeze the model before you wrap it"
        )
    _refuse_adapters(model)
    _refuse_quantised(model, strategy)
    if options.example is not None:
        observe_example(model, options.stack, options.example)
    parts = model_parts(model, options.stack)
    if parts.ambiguous and strategy.implementation.trains_base_weights:
        raise StrategyError(
            f"{type(model).__name__} does not run on a made-up input ({parts.unobserved or 'its arguments are not known'})"
            ", which would show what runs before its layers: pass the arguments of its forward method as example={...}"
        )
    if options.others == "train" and parts.others and not parts.others_observed:
        raise StrategyError(
            f"the made-up input of {type(model).__name__} does not reach the parts with other stacks of layers, so that "
            "it does not show how deep their training makes the backward pass: pass the arguments of its forward method "
            "as example={...}, or choose others='freeze'"
        )
    plan = strategy.implementation.prepare(model, strategy, options)
    if plan is not None:
        return plan
    frozen = strategy.frozen_layers(len(parts.layers), options.seed)
    return set_trainable(model, strategy, frozen, options)


def set_trainable(
    model: nn.Module, strategy: Strategy, frozen_layers: Collection[int], options: FreezeOptions
) -> FreezePlan:
    """Freeze exactly the given layers (counted from 0), and the embeddings if the options say so.

    The final norm and the head always train, except for a head that is tied to frozen embeddings.
    """
    parts = model_parts(model, options.stack)
    frozen = {id(p) for i in frozen_layers for p in parts.layer_parameters(i)}
    if strategy.implementation.embeddings_frozen(options.freeze_embeddings):
        frozen |= {id(p) for p in parts.embeddings}
    if options.others == "freeze":
        frozen |= {id(p) for p in parts.others}
    return freeze_parameters(model, strategy, frozen, options)


def freeze_parameters(
    model: nn.Module, strategy: Strategy, frozen: Collection[int], options: FreezeOptions
) -> FreezePlan:
    """Freeze exactly the parameters with these ids, and drop their gradients."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(id(parameter) not in frozen)
        if id(parameter) in frozen:
            parameter.grad = None
    for module in model.modules():
        # Encoders of audio make their input require a gradient, unless this flag is off.
        if isinstance(getattr(module, "_requires_grad", None), bool):
            flag = any(p.requires_grad for p in module.parameters())
            setattr(module, "_requires_grad", flag)  # noqa: B010
    store_frozen_linears(model_parts(model, options.stack), options)
    return describe(model, strategy, options.stack)


def describe(model: nn.Module, strategy: Strategy, stack: str | None = None) -> FreezePlan:
    """The plan that corresponds to a model's ``requires_grad`` flags.

    Args:
        stack: as in ``FreezeOptions``.
    """
    parts = model_parts(model, stack)
    n_layers = len(parts.layers)
    embeddings = {id(p) for p in parts.embeddings}
    return FreezePlan(
        strategy=strategy.name,
        n_layers=n_layers,
        frozen_layers=tuple(i for i in range(n_layers) if not parts.trains(i)),
        embeddings_frozen=not any(p.requires_grad for p in parts.embeddings),
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        total_parameters=count_parameters(model),
        backward_depth=backward_depth(model, stack),
        head_parameters=sum(p.numel() for p in parts.head if p.requires_grad),
        head_tied=_is_head_tied(model, embeddings),
        others_frozen=not any(p.requires_grad for p in parts.others) if parts.others else None,
        adapted=_adapted(model),
    )


def _adapted(model: nn.Module) -> tuple[str, ...]:
    """The names of the modules that have an adapter."""
    tuners = sys.modules.get("peft.tuners.tuners_utils")
    paths = [p for p, m in model.named_modules() if tuners and isinstance(m, tuners.BaseTunerLayer)]
    return tuple(dict.fromkeys(path.rpartition(".")[2] for path in paths))


def _is_head_tied(model: nn.Module, embeddings: Collection[int]) -> bool:
    """Whether a module other than an embedding uses an embedding's weight, as tied output heads do."""
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    weights = {id(table.weight) for table in tables} & set(embeddings)
    return any(
        id(parameter) in weights
        for module in model.modules()
        if not isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    )


def store_frozen_linears(parts: Parts, options: FreezeOptions) -> None:
    """Store the layers' frozen linear weights in ``frozen_dtype``, if one is set.

    In autocast's type the products are the same and need less memory. Norms keep their type, since
    autocast computes them in float32.
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
        type_name = type(parameter).__name__
        if hasattr(parameter, "ds_id") or type_name in ("DTensor", "FlatParameter") or _is_dtensor(parameter):
            raise StrategyError(
                f"{type(model).__name__} is sharded ({type_name}); freezing under ZeRO-3 or FSDP is not supported: "
                "freeze the model before sharding it, or train it unsharded"
            )


def _refuse_adapters(model: nn.Module) -> None:
    """Refuse a model with adapters: setting every parameter would make the base under them trainable."""
    tuners = sys.modules.get("peft.tuners.tuners_utils")
    configured = any(getattr(module, "peft_config", None) for module in model.modules())
    if configured or (tuners and any(isinstance(m, tuners.BaseTunerLayer) for m in model.modules())):
        raise StrategyError(
            f"{type(model).__name__} has adapters already: pass a model without adapters "
            "(the strategy LoRA adds its own)"
        )


def _refuse_quantised(model: nn.Module, strategy: Strategy) -> None:
    classes = quantised_classes(model)
    if classes and strategy.implementation.trains_base_weights:
        raise StrategyError(
            f"{type(model).__name__} has quantised weights ({', '.join(classes)}), which {strategy.name} cannot "
            "train: load the model without quantisation, or choose LoRA"
        )


def _is_dtensor(parameter: nn.Parameter) -> bool:
    return hasattr(parameter.data, "placements") and hasattr(parameter.data, "device_mesh")
