"""One short training with each optimiser, and what became of frozen weights and of moments."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import schedulefree
import torch
import transformers
from torch import nn

from lfreeze import AdaptiveFreezing, freeze
from lfreeze.errors import StrategyError
from lfreeze.strategy import Strategy
from tests.lfreeze.test_adaptive import ThreeLayers

Make = Callable[[list[nn.Parameter]], list[torch.optim.Optimizer]]


def _muon(parameters: list[nn.Parameter]) -> list[torch.optim.Optimizer]:
    matrices = [p for p in parameters if p.dim() == 2]
    return [torch.optim.Muon(matrices, lr=1e-2), torch.optim.AdamW([p for p in parameters if p.dim() != 2])]


def _one(make: Callable[..., Any], **options: Any) -> Make:
    return lambda parameters: [make(parameters, **options)]


OPTIMIZERS: dict[str, Make] = {
    **{
        name: _one(getattr(torch.optim, name))
        for name in ("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "LBFGS")
    },
    "AdamW (fused)": _one(torch.optim.AdamW, fused=True),
    "AdamW (foreach)": _one(torch.optim.AdamW, foreach=True, weight_decay=0.5),
    "AdamW (amsgrad)": _one(torch.optim.AdamW, amsgrad=True),
    "SGD": _one(torch.optim.SGD, lr=0.1),
    "SGD (momentum, weight decay)": _one(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1),
    "RMSprop (momentum)": _one(torch.optim.RMSprop, momentum=0.9, centered=True),
    "Muon and AdamW": _muon,
    "transformers.Adafactor": _one(transformers.Adafactor),
    "schedulefree.AdamWScheduleFree": _one(schedulefree.AdamWScheduleFree, lr=1e-2),
    "schedulefree.SGDScheduleFree": _one(schedulefree.SGDScheduleFree, lr=0.1),
    "schedulefree.RAdamScheduleFree": _one(schedulefree.RAdamScheduleFree, lr=1e-2),
}  # fmt: skip


def outcome(name: str, strategy: str, probe_steps: int = 2) -> str:
    """Train a small model with an optimiser, a third of its layers frozen; at least three steps after freezing."""
    model = ThreeLayers()
    adaptive = None
    if Strategy.parse(strategy).implementation.adaptive:
        adaptive = AdaptiveFreezing(model, strategy, probe_steps=probe_steps)
    else:
        freeze(model, strategy)
    # Optimisers skip parameters without a gradient: those that are frozen from the start may be listed.
    optimizers = OPTIMIZERS[name](list(model.parameters()))
    for optimizer in optimizers:
        if any(group.get("train_mode") is not None for group in optimizer.param_groups):
            optimizer.train()  # type: ignore[attr-defined]
    frozen = _frozen(model) if adaptive is None else {}
    moments = True
    try:
        # The first steps of schedule-free RAdam change nothing.
        for number in range(probe_steps + 8):
            _step(model, optimizers, number)
            before = [_state(optimizer) for optimizer in optimizers]
            if adaptive is not None and _switches(adaptive, optimizers):
                frozen = _frozen(model)
                moments = all(map(_kept, optimizers, before))
    except StrategyError as error:
        return f"refused: {str(error).split(' ', 1)[1].split(' together')[0]}"
    moved = [n for n, p in frozen.items() if not torch.equal(model.get_parameter(n), p)]
    trained = any(
        not torch.equal(p, q) for p, q in zip(model.parameters(), ThreeLayers().parameters(), strict=True)
    )
    if moved or not frozen or not trained:
        return f"wrong: {', '.join(moved) or 'nothing trained'}"
    if adaptive is None:
        return "frozen bits equal"
    return f"frozen bits equal, moments {'kept' if moments else 'lost'}"


def _switches(adaptive: AdaptiveFreezing, optimizers: list[torch.optim.Optimizer]) -> bool:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*a step changed no weight")
        return adaptive.step(*optimizers) is not None


def _frozen(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}


def _step(model: nn.Module, optimizers: list[torch.optim.Optimizer], seed: int) -> None:
    ids = torch.randint(0, 20, (8, 5), generator=torch.Generator().manual_seed(seed))

    def closure() -> torch.Tensor:
        model.zero_grad()
        loss = nn.functional.cross_entropy(model(ids), ids[:, 0] % 2)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    closure()
    for optimizer in optimizers:
        optimizer.step(closure if isinstance(optimizer, torch.optim.LBFGS) else None)  # type: ignore[arg-type]


def _state(optimizer: torch.optim.Optimizer) -> dict[Any, dict[str, Any]]:
    return {
        p: {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in state.items()}
        for p, state in optimizer.state.items()
    }


def _kept(optimizer: torch.optim.Optimizer, before: dict[Any, dict[str, Any]]) -> bool:
    """Whether the state is what it was, for the parameters that train, and gone for the others."""
    return all(
        p.requires_grad
        and all(
            torch.equal(v, before[p][k]) if isinstance(v, torch.Tensor) else v == before[p][k]
            for k, v in state.items()
        )
        for p, state in optimizer.state.items()
    )
