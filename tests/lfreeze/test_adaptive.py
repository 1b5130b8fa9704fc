"""Adaptive freezing on a model of three layers, against an independent computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lfreeze import AdaptiveFreezing
from lfreeze.errors import StrategyError


class ThreeLayers(nn.Module):
    """Embeddings, three layers of two or three tensors, a norm, a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(20, 6)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6, bias=False)) for _ in range(3)
        )
        self.norm = nn.LayerNorm(6)
        self.score = nn.Linear(6, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.embed(ids).mean(1)
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        return self.score(self.norm(hidden))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 20, (8, 5), generator=generator)
    nn.functional.cross_entropy(model(ids), ids[:, 0] % 2).backward()
    optimizer.step()
    optimizer.zero_grad()


OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2),
    "fused": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
    "momentum": lambda p: torch.optim.SGD(p, lr=1e-1, momentum=0.9),
}


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
@pytest.mark.parametrize(("strategy", "pick"), [("ADT-L34", np.argmin), ("ADT-H34", np.argmax)])
def test_the_switch(strategy: str, pick: object, optimizer_name: str) -> None:
    model = ThreeLayers()
    adaptive = AdaptiveFreezing(model, strategy, probe_steps=4)
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    before = [[p.detach().numpy().copy() for p in layer.parameters()] for layer in model.layers]
    for number in range(1, 5):
        assert adaptive.plan.frozen_layers == ()
        step(model, optimizer, number)
        plan = adaptive.step(optimizer)
        assert (plan is not None) is (number == 4)
    # The paper's score: L2 norm of each tensor's change, then the mean over the layer's tensors.
    expected = [
        np.mean(
            [
                np.sqrt(((p.detach().numpy().astype(np.float64) - old) ** 2).sum())
                for p, old in zip(layer.parameters(), olds, strict=True)
            ]
        )
        for layer, olds in zip(model.layers, before, strict=True)
    ]
    assert len(set(np.round(expected, 9))) == 3
    assert adaptive.plan.layer_changes == pytest.approx(expected, rel=1e-5)
    chosen = int(pick(expected))  # type: ignore[operator]
    assert adaptive.plan.frozen_layers == (chosen,)
    frozen = list(model.layers[chosen].parameters())
    assert all(p.grad is None and not p.requires_grad and p not in optimizer.state for p in frozen)
    after_switch = {n: p.detach().clone() for n, p in model.named_parameters()}
    for number in range(5, 9):
        step(model, optimizer, number)
        assert adaptive.step(optimizer) is None
    for name, parameter in model.named_parameters():
        moved = not torch.equal(parameter, after_switch[name])
        assert moved is parameter.requires_grad, name


def test_survivors_keep_their_moments_through_the_switch() -> None:
    model = ThreeLayers()
    adaptive = AdaptiveFreezing(model, "ADT-L67", probe_steps=1, freeze_embeddings="yes")
    assert not model.embed.weight.requires_grad
    optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
    step(model, optimizer, 1)
    moments = {p: state["exp_avg_sq"].clone() for p, state in optimizer.state.items()}
    plan = adaptive.step(optimizer)
    assert plan is not None
    assert len(plan.frozen_layers) == 2
    assert all(torch.equal(optimizer.state[p]["exp_avg_sq"], moments[p]) for p in optimizer.state)
    assert len(optimizer.state) == len(moments) - 6


def test_unsuitable_models_and_strategies_are_refused() -> None:
    with pytest.raises(StrategyError, match="BOT34 is not adaptive: use freeze"):
        AdaptiveFreezing(ThreeLayers(), "BOT34")
    with pytest.raises(StrategyError, match="freezes no layer"):
        AdaptiveFreezing(ThreeLayers(), "ADT-L25")


def test_a_probe_that_changes_no_weight_is_refused() -> None:
    model = ThreeLayers()
    adaptive = AdaptiveFreezing(model, "ADT-L34", probe_steps=2)
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.warns(UserWarning, match="a step changed no weight"):
        assert adaptive.step(optimizer) is None
    assert not any(adaptive.step(optimizer) for _ in range(198))
    with pytest.raises(
        StrategyError, match=r"no weight has changed in 200 calls of step.*after each optimizer\.step"
    ):
        adaptive.step(optimizer)


def test_arguments_of_another_type_are_refused() -> None:
    with pytest.raises(StrategyError, match=r"AdaptiveFreezing expects a model .*, not None"):
        AdaptiveFreezing(None, "ADT-L34")  # type: ignore[arg-type]
    adaptive = AdaptiveFreezing(ThreeLayers(), "ADT-L34")
    with pytest.raises(StrategyError, match=r"step expects the optimiser .*, not 'x'"):
        adaptive.step("x")  # type: ignore[arg-type]
