"""The closed forms against published totals, torch's FLOP counter, and measured bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GemmaForSequenceClassification,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    OPTForSequenceClassification,
    PhiConfig,
    PhiForCausalLM,
    PhiForSequenceClassification,
)

from lfreeze.cost import Adapters, Cost, cost
from lfreeze.freezing import prepare
from lfreeze.model_shape import ModelShape, ShapeError
from lfreeze.models.catalog import MODELS
from lfreeze.models.minicpm import GraniteForSequenceClassification, granite_config
from lfreeze.plan import FreezeOptions, FreezePlan
from lfreeze.strategy import Strategy, paper_strategies
from lfreeze.training.meter import MemoryUse, Meter
from reproduce.plan.search_space import load_space

CPU = torch.device("cpu")
BATCH, LENGTH, LABELS = 16, 24, 3
CASES = [
    ("ALL", "auto"),
    ("BOT50", "auto"),
    ("BOT50", "no"),
    ("INT50", "auto"),
    ("TOP50", "auto"),
    ("LoRA", "auto"),
]
TINY = {
    "gemma": {"hidden_size": 64, "intermediate_size": 200, "num_key_value_heads": 1, "head_dim": 16},
    "phi": {"hidden_size": 64, "intermediate_size": 256, "resid_pdrop": 0.1, "partial_rotary_factor": 0.5},
    "minicpm": {"hidden_size": 64, "intermediate_size": 160, "scale_depth": 1.4, "hidden_act": "silu"},
    "opt": {"hidden_size": 64, "ffn_dim": 256, "word_embed_proj_dim": 64, "max_position_embeddings": 40},
}


def build(kind: str, attention: str) -> tuple[Any, ModelShape]:
    sizes = {"num_hidden_layers": 6, "num_attention_heads": 4, "vocab_size": 300, "pad_token_id": 0} | TINY[
        kind
    ]
    classes: dict[str, tuple[Callable[..., Any], Any]] = {
        "gemma": (GemmaConfig, GemmaForSequenceClassification),
        "phi": (PhiConfig, PhiForSequenceClassification),
        "opt": (OPTConfig, OPTForSequenceClassification),
        "minicpm": (lambda **values: granite_config(values), GraniteForSequenceClassification),
    }
    make_config, model_class = classes[kind]
    config = make_config(**sizes)
    config.num_labels, config.use_cache, config._attn_implementation = LABELS, False, attention
    torch.manual_seed(0)
    return model_class(config).train(), ModelShape.from_config({"model_type": kind, **sizes})


def frozen_model(kind: str, name: str, embeddings: str, attention: str) -> tuple[Any, FreezePlan, Cost]:
    model, shape = build(kind, attention)
    strategy = Strategy.parse(name)
    plan = prepare(model, strategy, FreezeOptions(freeze_embeddings=embeddings))
    lora = name == "LoRA"
    predicted = cost(
        shape,
        () if lora else strategy.frozen_layers(6),
        embeddings_frozen=plan.embeddings_frozen,
        n_labels=LABELS,
        batch_size=BATCH,
        length=LENGTH,
        precision="fp32",
        adapters=Adapters(8) if lora else None,
    )
    return model, plan, predicted


def loss_of(model: Any) -> torch.Tensor:
    ids = torch.randint(3, 300, (BATCH, LENGTH), generator=torch.Generator().manual_seed(1))
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return F.cross_entropy(logits, torch.arange(BATCH) % LABELS)


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize(("name", "embeddings"), CASES)
def test_flops_equal_torchs_counter(kind: str, name: str, embeddings: str) -> None:
    """Exactly, forward and backward; with attention written out, so that its products are seen."""
    model, plan, predicted = frozen_model(kind, name, embeddings, "eager")
    with FlopCounterMode(display=False) as forward:
        loss = loss_of(model)
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    assert predicted.forward_flops == forward.get_total_flops()
    assert predicted.backward_flops == backward.get_total_flops()
    assert predicted.trainable_parameters == plan.trainable_parameters
    assert predicted.total_parameters == plan.total_parameters
    assert predicted.backward_depth == plan.backward_depth


def measure(model: Any) -> MemoryUse:
    """The second step, when the optimiser's state is there."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    meter = Meter(model, CPU)
    for _ in range(2):
        meter.begin_phase()
        with meter.step(optimizer, memory=True):
            with meter.forward():
                loss = loss_of(model)
            loss.backward()
            meter.after_backward(model.parameters())
            optimizer.step()
            optimizer.zero_grad()
        del loss
    return meter.memory()


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize(("name", "embeddings"), CASES)
def test_predicted_bytes_are_near_measured_ones(kind: str, name: str, embeddings: str) -> None:
    """Gradients to the byte, moments but for the step counts, activations and peak within 10 %."""
    model, _, predicted = frozen_model(kind, name, embeddings, "sdpa")
    used = measure(model)
    tensors = sum(p.requires_grad for p in model.parameters())
    assert predicted.gradient_bytes == used.gradient
    assert predicted.optimiser_bytes == used.optimiser - 4 * tensors
    assert predicted.activation_bytes == pytest.approx(used.activation, rel=0.10)
    assert predicted.training_bytes == pytest.approx(used.training, rel=0.10)


PAPER_MODELS = ("gemma-2b", "phi-2", "minicpm-2b-128k")


def paper_shape(name: str) -> ModelShape:
    return ModelShape.from_config(MODELS[name].config)


def test_the_papers_models_have_their_published_sizes() -> None:
    """Published totals are of the language models: the head differs, and Gemma shares its embeddings."""
    gemma, phi, minicpm = (paper_shape(name) for name in PAPER_MODELS)
    assert gemma.parameters(0) == 2_506_172_416
    assert phi.parameters(0) + phi.vocab_size * (phi.hidden_size + 1) == 2_779_683_840
    # Published as 2.4 billion without embeddings.
    assert minicpm.parameters(0) - minicpm.embedding_parameters == 2_442_057_984
    assert [shape.n_layers for shape in (gemma, phi, minicpm)] == [18, 32, 40]
    assert paper_shape("smollm2-135m").parameters(0) == 134_515_008
    assert paper_shape("opt-125m").parameters(0) == 125_239_296


@pytest.mark.parametrize(
    ("name", "config_class", "model_class"),
    [
        ("gemma-2b", GemmaConfig, GemmaForCausalLM),
        ("phi-2", PhiConfig, PhiForCausalLM),
        ("minicpm-2b-128k", None, GraniteForCausalLM),
        ("smollm2-135m", LlamaConfig, LlamaForCausalLM),
        ("opt-125m", OPTConfig, OPTForCausalLM),
    ],
)
def test_sizes_agree_with_transformers_on_the_meta_device(
    name: str, config_class: Any, model_class: Any
) -> None:
    values = MODELS[name].config
    config = config_class(**values) if config_class else granite_config(values)
    with torch.device("meta"):
        model = model_class(config)
    base = sum(p.numel() for p in model.base_model.parameters())
    assert paper_shape(name).parameters(0) == base


@pytest.mark.parametrize(
    ("name", "frozen", "trainable"),
    [
        ("gemma-2b", (38, 60), (18, 40)),
        ("phi-2", (29, 52), (24, 48)),
        ("minicpm-2b-128k", (33, 55), (22, 45)),
    ],
)
def test_gradients_and_moments_saved_by_bot(
    name: str, frozen: tuple[int, int], trainable: tuple[int, int]
) -> None:
    """Percent saved by BOT25 and BOT50 with embeddings frozen and trainable, computed by hand."""
    shape = paper_shape(name)

    def of(name: str, embeddings_frozen: bool) -> int:
        layers = Strategy.parse(name).frozen_layers(shape.n_layers) if name != "ALL" else ()
        predicted = cost(
            shape, layers, embeddings_frozen=embeddings_frozen, n_labels=2, batch_size=32, length=128
        )
        return predicted.gradient_bytes + predicted.optimiser_bytes

    full = of("ALL", False)
    for expected, embeddings_frozen in ((frozen, True), (trainable, False)):
        saved = tuple(round(100 * (1 - of(n, embeddings_frozen) / full)) for n in ("BOT25", "BOT50"))
        assert saved == expected


@pytest.mark.parametrize("percent", [25, 50, 75])
def test_large_layers_approach_the_ideal_times(percent: int) -> None:
    """(3 - 2r) / 3 for BOT, (3 - r) / 3 for TOP and INT with trainable embeddings."""
    shape, ratio = paper_shape("minicpm-2b-128k"), Fraction(percent, 100)

    def at(name: str, embeddings_frozen: bool) -> Cost:
        layers = Strategy.parse(name).frozen_layers(40) if name != "ALL" else ()
        return cost(shape, layers, embeddings_frozen=embeddings_frozen, n_labels=2, batch_size=1, length=1)

    full = at("ALL", False)
    assert at(f"BOT{percent}", True).step_time_ratio(full) == pytest.approx(
        float((3 - 2 * ratio) / 3), abs=1e-3
    )
    for kind in ("TOP", "INT"):
        ratio_of_times = at(f"{kind}{percent}", False).step_time_ratio(full)
        assert ratio_of_times == pytest.approx(float((3 - ratio) / 3), abs=1e-3)


def test_freezing_more_never_costs_more() -> None:
    recipe, shape = load_space("paper").recipe, paper_shape("gemma-2b")
    full = Strategy.parse("ALL").cost(shape, recipe, n_labels=2, length=128)
    for kind in ("BOT", "TOP", "ADT-L"):
        costs = [
            Strategy.parse(f"{kind}{r}").cost(shape, recipe, n_labels=2, length=128) for r in (25, 50, 75)
        ]
        for more, less in zip([full, *costs], costs, strict=False):
            assert less.training_bytes < more.training_bytes
            assert less.backward_flops < more.backward_flops
            assert less.forward_flops == more.forward_flops
            assert less.weights_bytes == more.weights_bytes


def test_every_paper_strategy_has_a_cost_on_every_paper_model() -> None:
    recipe = load_space("paper").recipe
    for model in PAPER_MODELS:
        shape = paper_shape(model)
        for name in paper_strategies():
            predicted = Strategy.parse(name).cost(shape, recipe, n_labels=2, length=96)
            frozen = Strategy.parse(name).frozen_count(shape.n_layers)
            assert predicted.trainable_parameters < predicted.total_parameters or name == "ALL"
            if name.startswith(("INT", "TOP", "ADT")):
                assert predicted.trainable_parameters == shape.parameters(2) - frozen * shape.layer_parameters


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(ShapeError, match="'t5'; known are gemma, phi, minicpm"):
        ModelShape.from_config({"model_type": "t5"})


@pytest.mark.parametrize("name", ["ALL", "BOT50"])
def test_accumulated_gradients_are_held_beside_activations(name: str) -> None:
    model, _, predicted = frozen_model("gemma", name, "auto", "sdpa")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    meter = Meter(model, CPU)
    for _ in range(2):
        meter.begin_phase()
        with meter.step(optimizer, memory=True):
            for _ in range(2):
                loss_of(model).backward()
            optimizer.step()
            optimizer.zero_grad()
    both = replace(predicted, accumulated=True)
    assert both.training_bytes - predicted.training_bytes == min(
        predicted.gradient_bytes, predicted.activation_bytes
    )
    assert both.training_bytes == pytest.approx(meter.memory().training, rel=0.10)
