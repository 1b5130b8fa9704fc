"""Quantised weights: recognised however they are stored, and counted as what they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForSequenceClassification

from lfreeze import freeze
from lfreeze.errors import StrategyError
from lfreeze.quantization import count_parameters, quantised_classes
from tests.lfreeze.training.test_loop import make_model


class PackedLinear(nn.Module):
    """As GPTQ stores a linear map: eight four-bit weights in an integer."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("weight_now", linear.weight.detach().clone(), persistent=False)
        packed = torch.zeros(linear.in_features // 8, linear.out_features, dtype=torch.int32)
        self.register_buffer("qweight", packed)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(hidden, self.weight_now)  # type: ignore[arg-type]


def quantise(how: str) -> tuple[nn.Module, int]:
    """A classifier with one quantised linear map, and its parameters before."""
    model = make_model()
    count = sum(p.numel() for p in model.parameters())
    mlp = model.model.layers[1].mlp
    if how == "buffers":
        mlp.up_proj = PackedLinear(mlp.up_proj)
    elif how == "integers":
        weight = nn.Parameter(mlp.up_proj.weight.detach().to(torch.int8), requires_grad=False)
        mlp.up_proj.weight = weight
    else:
        weight = nn.Parameter(mlp.up_proj.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)
        mlp.up_proj.weight = weight
    return model, count


@pytest.mark.parametrize(
    ("how", "named"), [("buffers", "PackedLinear"), ("integers", "Linear"), ("eight-bit floats", "Linear")]
)
def test_quantised_weights_are_named_and_counted(how: str, named: str) -> None:
    model, count = quantise(how)
    assert quantised_classes(model) == [named]
    assert count_parameters(model) == count
    for strategy in ("ALL", "BOT50", "TOP25"):
        with pytest.raises(
            StrategyError,
            match=rf"quantised weights \({named}\), which {strategy} cannot train: .* choose LoRA",
        ):
            freeze(model, strategy)


def test_a_plain_model_is_not_quantised() -> None:
    model = make_model()
    assert quantised_classes(model) == []
    assert quantised_classes(model.bfloat16()) == []
    assert count_parameters(model) == sum(p.numel() for p in model.parameters())


def test_lora_trains_adapters_on_quantised_layers() -> None:
    model, count = quantise("buffers")
    plan = freeze(model, "LoRA", lora_rank=4)
    adapters = 4 * 4 * ((32 + 32) + (32 + 16))
    assert plan.total_parameters == count + adapters
    assert plan.trainable_parameters == adapters + 3 * 32


def _bitsandbytes() -> Any:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)


def _torchao() -> Any:
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    from transformers import TorchAoConfig

    return TorchAoConfig(quantization.Int8WeightOnlyConfig())


@pytest.mark.parametrize("config", [_bitsandbytes, _torchao])
def test_models_that_libraries_quantise(config: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
    plain = LlamaForSequenceClassification(LlamaConfig(**sizes, vocab_size=100, pad_token_id=0))
    plain.save_pretrained(tmp_path)
    count = sum(p.numel() for p in plain.parameters())

    def load() -> nn.Module:
        model: nn.Module = AutoModelForSequenceClassification.from_pretrained(
            tmp_path, quantization_config=config()
        )
        return model

    with pytest.raises(StrategyError, match=r"quantised weights \(.*\), which TOP25 cannot train"):
        freeze(load(), "TOP25")
    model = load()
    plan = freeze(model, "LoRA")
    assert plan.total_parameters - plan.trainable_parameters == count - plan.head_parameters
    model(input_ids=torch.tensor([[5, 6, 7]]), labels=torch.tensor([1])).loss.backward()
    trains = {n for n, p in model.named_parameters() if p.requires_grad}
    assert {n for n, p in model.named_parameters() if p.grad is not None} == trains
