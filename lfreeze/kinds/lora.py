"""LoRA through peft: the base model frozen, low-rank adapters and the head trained (§4.3)."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lfreeze.cost import Adapters
from lfreeze.errors import StrategyError
from lfreeze.lora_targets import lora_targets, require_peft
from lfreeze.strategy import Kind, Strategy, register

if TYPE_CHECKING:
    from torch import nn

    from lfreeze.plan import FreezeOptions, FreezePlan
    from lfreeze.recipe import Recipe
    from lfreeze.shape import Shape


@register
class LoRA(Kind):
    """Freezes the whole base model and trains low-rank adapters on the target modules."""

    label = "LoRA"
    order = 10
    paper_percents = ("",)
    takes_ratio = False
    trains_base_weights = False

    def embeddings_frozen(self, setting: str) -> bool:
        return True

    def prepare(self, model: nn.Module, strategy: Strategy, options: FreezeOptions) -> FreezePlan:
        """Inject the adapters in place, in the layers above those that the strategy selects.

        Raises:
            StrategyError: peft is not installed, or the model has no module with a target's name.
        """
        require_peft()
        from peft import LoraConfig, inject_adapter_in_model
        from transformers.pytorch_utils import Conv1D

        from lfreeze.blocks import model_parts
        from lfreeze.freezing import describe, store_frozen_linears

        parts = model_parts(model, options.stack)
        n_layers = len(parts.layers)
        adapted = sorted(set(range(n_layers)) - set(strategy.frozen_layers(n_layers)))
        inside = {module for index in adapted for module in parts.layers[index].modules()}
        paths = [path for path, module in model.named_modules() if module in inside]
        targets = lora_targets(options.lora_targets, _linear_maps(parts.layers), _model_type(model))
        absent = [t for t in targets if not any(f".{path}".endswith(f".{t}") for path in paths)]
        if absent:
            raise StrategyError(
                f"LoRA finds no module named {', '.join(absent)} in {type(model).__name__}; "
                "name the attention projections of this architecture with lora_targets"
            )
        config = LoraConfig(
            r=options.lora_rank,
            lora_alpha=options.lora_alpha,
            lora_dropout=options.lora_dropout,
            target_modules=[p for p in paths if any(f".{p}".endswith(f".{t}") for t in targets)],
            # GPT-2's projections keep their weights transposed.
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        )
        inject_adapter_in_model(config, model)
        for parameter in parts.head + (parts.others if options.others == "train" else ()):
            if parameter.is_floating_point():
                parameter.requires_grad_(True)
        store_frozen_linears(parts, options)
        return describe(model, strategy, options.stack)

    def undo(self, model: nn.Module) -> None:
        _remove_adapters(model, merge=False)

    def check_model(self, name: str, model: nn.Module, layers: Sequence[nn.Module], recipe: Recipe) -> None:
        """Check that peft is installed and that every target is a linear map of the layers.

        Raises:
            StrategyError: it names what is missing and, for a target, the linear maps that the model has.
        """
        require_peft()
        linear_maps = _linear_maps(layers)
        for target in lora_targets(recipe.chosen_lora_targets, linear_maps, _model_type(model)):
            if target not in linear_maps:
                raise StrategyError(
                    f"LoRA's target {target!r} is no linear map of the model {name}; "
                    f"it has {', '.join(linear_maps)}: choose with --set lora_targets=NAME,NAME"
                )

    def cost_options(self, shape: Shape, recipe: Recipe) -> dict[str, Any]:
        """The adapters on a frozen base model.

        Raises:
            StrategyError: a target is no linear map of the layers.
        """
        linears = list(dict.fromkeys(name for name, *_ in shape.linears))
        targets = lora_targets(recipe.chosen_lora_targets, linears, shape.model_type)
        for target in targets:
            if target not in linears:
                raise StrategyError(
                    f"LoRA's target {target!r} is no linear map of the layers of a model of type "
                    f"{shape.model_type}, which has {', '.join(linears)}: choose among these with lora_targets"
                )
        return {"adapters": Adapters(recipe.lora_rank, targets)}


def _model_type(model: nn.Module) -> str:
    return str(getattr(getattr(model, "config", None), "model_type", ""))


def _linear_maps(layers: Sequence[nn.Module]) -> dict[str, None]:
    """The names of the layers' linear maps, in order."""
    from torch import nn

    return {
        path.rsplit(".", 1)[-1]: None
        for layer in layers
        for path, module in layer.named_modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    }


def merge_lora(model: nn.Module) -> None:
    """Add the adapters' products to the weights they adapt, in place, and remove the adapters.

    Call it after training and before saving: ``from_pretrained`` alone does not load the tensors of a
    model that was saved with its adapters.

    Raises:
        StrategyError: peft is not installed.
    """
    require_peft()
    _remove_adapters(model, merge=True)


def _remove_adapters(model: nn.Module, *, merge: bool) -> None:
    if importlib.util.find_spec("peft") is None:
        return  # No model has adapters.
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BaseTunerLayer):
                if merge:
                    child.merge()
                setattr(parent, name, child.get_base_layer())
            elif isinstance(child, ModulesToSaveWrapper):
                trained = child.modules_to_save[child.active_adapters[0]] if child.active_adapters else None
                setattr(parent, name, trained if merge and trained is not None else child.original_module)
    for leftover in ("peft_config", "active_adapter", "_hf_peft_config_loaded"):
        if leftover in vars(model):
            delattr(model, leftover)
