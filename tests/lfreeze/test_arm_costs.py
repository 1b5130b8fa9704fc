"""The predicted cost of the arms beside the paper's, as plans use it, against torch's counters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lfreeze.cost import Cost
from lfreeze.errors import StrategyError
from lfreeze.freezing import prepare
from lfreeze.model_shape import ModelShape
from lfreeze.models.walk import WalkedShape
from lfreeze.plan import FreezeOptions, FreezePlan
from lfreeze.recipe import Recipe
from lfreeze.redraw import LayerRedraw
from lfreeze.strategy import Strategy
from tests.conftest import with_values
from tests.lfreeze.models import test_walk
from tests.lfreeze.test_cost import BATCH, LABELS, LENGTH, TINY, build, loss_of, measure
from tests.support import architectures

CASES = [
    (kind, name)
    for kind in TINY
    for name in ("RND50", "LISA50", "BOT-LoRA50", "NORM", "BitFit")
    if name != "BitFit" or kind in ("phi", "opt")
]
# Of architectures without a formula, whose own code is counted.
COUNTED = [
    ("bert", "BitFit"), ("gpt2", "BitFit"), ("gpt2", "BOT-LoRA50"), ("bert", "LoRA"), ("qwen3", "NORM"),
    ("deberta", "NORM"), ("gpt_neox", "RND50"),
]  # fmt: skip


def frozen(model: Any, shape: Any, name: str, recipe: Recipe) -> tuple[FreezePlan, Cost]:
    strategy, options = Strategy.parse(name), FreezeOptions(seed=3)
    plan = prepare(model.train(), strategy, options)
    if strategy.implementation.redraws:
        plan = LayerRedraw(model, strategy, options).plan
    recipe = with_values(recipe, batch_size=BATCH, lora_rank=8, lora_dropout=0.1)
    predicted = strategy.cost(shape, recipe, n_labels=LABELS, length=LENGTH)
    assert predicted.trainable_parameters == plan.trainable_parameters
    assert predicted.total_parameters == plan.total_parameters
    assert predicted.backward_depth == plan.backward_depth
    return plan, predicted


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_flops_equal_torchs_counter(kind: str, name: str, recipe: Recipe) -> None:
    model, shape = build(kind, "eager")
    _, predicted = frozen(model, shape, name, recipe)
    with FlopCounterMode(display=False) as forward:
        loss = loss_of(model)
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    assert predicted.forward_flops == forward.get_total_flops()
    assert predicted.backward_flops == backward.get_total_flops()


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_predicted_bytes_are_near_measured_ones(kind: str, name: str, recipe: Recipe) -> None:
    """Gradients to the byte, moments but for the step counts, activations and peak within 10 %."""
    model, shape = build(kind, "sdpa")
    _, predicted = frozen(model, shape, name, recipe)
    used = measure(model)
    tensors = sum(p.requires_grad for p in model.parameters())
    assert predicted.gradient_bytes == used.gradient
    assert predicted.optimiser_bytes == used.optimiser - 4 * tensors
    assert predicted.activation_bytes == pytest.approx(used.activation, rel=0.10)
    assert predicted.training_bytes == pytest.approx(used.training, rel=0.10)


@pytest.mark.parametrize(("architecture", "name"), COUNTED)
def test_counted_bytes_are_near_measured_ones(architecture: str, name: str, recipe: Recipe) -> None:
    torch.manual_seed(0)
    model = architectures.build(architecture)
    model.config.use_cache = False
    _, predicted = frozen(model, WalkedShape.from_config(model.config.to_dict()), name, recipe)
    used = test_walk.measured(model)
    assert predicted.gradient_bytes == used.gradient
    assert predicted.activation_bytes == pytest.approx(used.activation, rel=0.10)
    assert predicted.weights_bytes + predicted.training_bytes == pytest.approx(used.peak_allocated, rel=0.10)


@pytest.mark.parametrize("kind", test_walk.FORMULAS)
@pytest.mark.parametrize("which", ["biases", "norms"])
def test_a_formula_counts_vectors_as_the_model_has_them(kind: str, which: str) -> None:
    config = test_walk.config_of(kind)
    formula, counted = ModelShape.from_config(config), WalkedShape.from_config(config)
    for embeddings in (False, True):
        parameters = [s.vector_parameters(which, embeddings=embeddings) for s in (formula, counted)]
        assert parameters[0] == parameters[1]
    for precision in ("fp32", "bf16-mixed"):
        kept = [sum(s.saved_for_vectors(which, BATCH, 64, precision, "same")) for s in (formula, counted)]
        assert kept[0] == pytest.approx(kept[1], rel=0.10)


def test_the_peak_of_drawn_layers_is_that_of_the_most_expensive_draw(recipe: Recipe) -> None:
    """With frozen embeddings, the backward pass stops below the first layer that trains."""
    _, shape = build("gemma", "sdpa")
    fixed = with_values(recipe, freeze_embeddings="yes")
    for name in ("RND50", "LISA50"):
        strategy = Strategy.parse(name)
        draws = [
            strategy.implementation.layers_cost(
                shape,
                strategy.implementation.select(6, strategy.ratio, seed),
                fixed,
                n_labels=LABELS,
                length=LENGTH,
            ).training_bytes
            for seed in range(30)
        ]
        peak = strategy.peak_cost(shape, fixed, n_labels=LABELS, length=LENGTH)
        assert max(draws) == peak.training_bytes > min(draws)


def test_vectors_that_a_model_lacks_have_no_cost(recipe: Recipe) -> None:
    _, shape = build("gemma", "sdpa")
    with pytest.raises(StrategyError, match="BitFit trains biases, and a model of type gemma has none"):
        Strategy.parse("BitFit").cost(shape, recipe, n_labels=LABELS, length=LENGTH)
