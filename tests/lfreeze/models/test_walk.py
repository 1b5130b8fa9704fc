"""Counted sizes and activations against measured steps, and the formulas against the counted ones."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from lfreeze.cost import Adapters, cost
from lfreeze.freezing import prepare
from lfreeze.model_shape import ModelShape, ShapeError
from lfreeze.models.catalog import MODELS
from lfreeze.models.shapes import model_shape
from lfreeze.models.walk import WalkedShape
from lfreeze.plan import FreezeOptions
from lfreeze.shape import Shape
from lfreeze.strategy import Strategy
from lfreeze.training.meter import MemoryUse, Meter
from tests.support.architectures import build

BATCH, LENGTH, LABELS = 16, 24, 3
GIB = 2**30
COUNTED = [
    ("gemma2", "ALL"), ("gemma3", "BOT50"), ("qwen3", "ALL"), ("qwen3", "LoRA"), ("phi3", "INT50"),
    ("gpt2", "BOT50"), ("bert", "INT50"), ("roberta", "ALL"), ("modernbert", "TOP50"), ("deberta", "ALL"),
    ("mixtral", "ALL"),
]  # fmt: skip
FORMULAS = {
    "gemma": {"intermediate_size": 400, "num_key_value_heads": 1, "head_dim": 64},
    "phi": {"intermediate_size": 512, "resid_pdrop": 0.1},
    "minicpm": {"intermediate_size": 360, "scale_depth": 1.4, "hidden_act": "silu"},
    "opt": {"ffn_dim": 512, "word_embed_proj_dim": 128, "max_position_embeddings": 80},
    "qwen2": {"intermediate_size": 360, "num_key_value_heads": 2},
}


def config_of(kind: str) -> dict[str, Any]:
    sizes = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 2, "vocab_size": 300}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return {"model_type": kind, **sizes, **tokens, **FORMULAS[kind]}


def measured(model: Any, precision: str = "fp32") -> MemoryUse:
    """The second step on padded batches, when the optimiser's state is there."""
    device = torch.device("cpu")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    meter = Meter(model, device)
    ids = torch.randint(3, 90, (BATCH, LENGTH), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    ids[::2, LENGTH // 2 :], mask[::2, LENGTH // 2 :] = 0, 0
    for _ in range(2):
        meter.begin_phase()
        with meter.step(optimizer, memory=True):
            with meter.forward(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
                logits = model(input_ids=ids, attention_mask=mask).logits
                loss = F.cross_entropy(logits.float(), torch.arange(BATCH) % LABELS)
            loss.backward()
            meter.after_backward(model.parameters())
            optimizer.step()
            optimizer.zero_grad()
        del loss, logits
    return meter.memory()


@pytest.mark.parametrize(("architecture", "name"), COUNTED)
def test_counted_bytes_are_near_measured_ones(architecture: str, name: str) -> None:
    """Gradients to the byte, activations within 3 %, and the peak, weights included, within 10 %."""
    torch.manual_seed(0)
    model = build(architecture)
    model.config.use_cache = False
    shape = WalkedShape.from_config(model.config.to_dict())
    lora = name == "LoRA"
    plan = prepare(model.train(), Strategy.parse(name), FreezeOptions())
    predicted = cost(
        shape,
        () if lora else plan.frozen_layers,
        embeddings_frozen=plan.embeddings_frozen,
        n_labels=LABELS,
        batch_size=BATCH,
        length=LENGTH,
        precision="fp32",
        adapters=Adapters(8) if lora else None,
    )
    used = measured(model)
    assert predicted.total_parameters == plan.total_parameters
    assert predicted.trainable_parameters == plan.trainable_parameters
    assert predicted.backward_depth == plan.backward_depth
    assert predicted.gradient_bytes == used.gradient
    assert predicted.activation_bytes == pytest.approx(used.activation, rel=0.03 if not lora else 0.10)
    assert predicted.weights_bytes + predicted.training_bytes == pytest.approx(used.peak_allocated, rel=0.10)


@pytest.mark.parametrize("architecture", ["qwen2", "phi", "bert"])
def test_counted_bytes_under_autocast_are_near_measured_ones(architecture: str) -> None:
    torch.manual_seed(0)
    model = build(architecture)
    model.config.use_cache = False
    shape = WalkedShape.from_config(model.config.to_dict())
    plan = prepare(model.train(), Strategy.parse("INT50"), FreezeOptions())
    predicted = cost(
        shape,
        plan.frozen_layers,
        embeddings_frozen=False,
        n_labels=LABELS,
        batch_size=BATCH,
        length=LENGTH,
    )
    assert predicted.activation_bytes == pytest.approx(measured(model, "bf16-mixed").activation, rel=0.03)


def kept(shape: Shape, precision: str, batch: int = BATCH, length: int = 64) -> int:
    saved = shape.saved(batch, length, precision, "same")
    return sum(saved.trained) + sum(saved.frozen) + saved.behind + saved.norm + saved.front


@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize(
    ("precision", "device"),
    [("fp32", "cpu"), ("bf16-mixed", "cpu"), ("bf16-mixed", "cuda"), ("bf16", "cuda")],
)
def test_a_formula_keeps_what_the_model_keeps(kind: str, precision: str, device: str) -> None:
    config = config_of(kind)
    formula, counted = ModelShape.from_config(config, device), WalkedShape.from_config(config, device)
    assert kept(formula, precision) == pytest.approx(kept(counted, precision), rel=0.10)
    assert formula.parameters(3) == counted.parameters(3)
    assert formula.layers == counted.layers
    assert formula.products_width == counted.products_width


def test_phi_2_keeps_more_on_cuda() -> None:
    """At full size, 32 examples of 128 tokens: the power in float32 adds 7.5 GiB; dropout masks of one byte
    where the CPU has two save 0.6 GiB under autocast, and 1.9 GiB in fp32, where it has four."""
    config = MODELS["phi-2"].config
    for make in (ModelShape.from_config, WalkedShape.from_config):
        on_cpu, on_cuda = make(config, "cpu"), make(config, "cuda")
        more = {
            precision: sum(on_cuda.saved(32, 128, precision, "same").frozen)
            - sum(on_cpu.saved(32, 128, precision, "same").frozen)
            for precision in ("bf16-mixed", "fp32")
        }
        assert more["bf16-mixed"] / GIB == pytest.approx(7.5 - 0.625, abs=0.01)
        assert more["fp32"] / GIB == pytest.approx(-1.875, abs=0.01)
    # What autograd keeps of the full-size model in the paper's precision, on a GPU.
    formula, counted = ModelShape.from_config(config, "cuda"), WalkedShape.from_config(config, "cuda")
    assert kept(formula, "bf16-mixed", 32, 128) == pytest.approx(
        kept(counted, "bf16-mixed", 32, 128), rel=0.02
    )


def test_a_formula_loads_no_torch() -> None:
    script = (
        "import sys; from lfreeze.models.shapes import model_shape; from lfreeze.models.catalog import MODELS;"
        "model_shape(MODELS['phi-2'].config, 'cuda').saved(32, 128, 'bf16', 'same'); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "unheard-of"}, "no predicted cost for model_type 'unheard-of': .* no architecture"),
        ({"model_type": "bart"}, "no predicted cost for model_type 'bart'"),
        ({"model_type": "gemma"}, "needs hidden_size from 1 to 16,777,216, not None"),
    ],
)
def test_what_cannot_be_counted_is_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        model_shape(config)
