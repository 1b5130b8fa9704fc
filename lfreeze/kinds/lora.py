"""LoRA through peft: the base model frozen, low-rank adapters and the head trained (§4.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lfreeze.errors import StrategyError
from lfreeze.strategy import Kind, Strategy

if TYPE_CHECKING:
    from torch import nn

    from lfreeze.plan import FreezeOptions, FreezePlan


class LoRA(Kind):
    label = "LoRA"
    takes_ratio = False
    freezes_embeddings = True

    def prepare(self, model: nn.Module, strategy: Strategy, options: FreezeOptions) -> FreezePlan:
        from peft import LoraConfig, inject_adapter_in_model
        from transformers.pytorch_utils import Conv1D

        from lfreeze.blocks import model_parts
        from lfreeze.freezing import describe, store_frozen_linears

        parts = model_parts(model)
        names = [f".{name}" for name, _ in model.named_modules()]
        absent = [t for t in options.lora_targets if not any(name.endswith(f".{t}") for name in names)]
        if absent:
            raise StrategyError(
                f"LoRA finds no module named {', '.join(absent)} in {type(model).__name__}; "
                "name the attention projections of this architecture with lora_targets"
            )
        config = LoraConfig(
            r=options.lora_rank,
            lora_alpha=options.lora_alpha,
            lora_dropout=options.lora_dropout,
            target_modules=list(options.lora_targets),
            # GPT-2's projections keep their weights transposed.
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        )
        inject_adapter_in_model(config, model)
        for parameter in parts.head:
            parameter.requires_grad_(True)
        store_frozen_linears(parts, options)
        return describe(model, strategy)

    def undo(self, model: nn.Module) -> None:
        _unwrap(model, merge=False)


def merge_lora(model: nn.Module) -> None:
    """Add the adapters' products to the weights they adapt, in place, and take the adapters out.

    Call it after training and before saving: a model that holds adapters is saved with tensors
    that a plain ``from_pretrained`` does not find.
    """
    _unwrap(model, merge=True)


def _unwrap(model: nn.Module, *, merge: bool) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BaseTunerLayer):
                if merge:
                    child.merge()
                setattr(parent, name, child.get_base_layer())
    for leftover in ("peft_config", "active_adapter", "_hf_peft_config_loaded"):
        if leftover in vars(model):
            delattr(model, leftover)
