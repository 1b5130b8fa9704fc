"""Freezing with every optimiser: frozen bits stay, survivors keep their moments, and a step is an update."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schedulefree
import torch
import torch.distributed as dist
from accelerate import Accelerator, cpu_offload
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lfreeze import AdaptiveFreezing, freeze
from lfreeze.errors import StrategyError
from tests.lfreeze.test_adaptive import ThreeLayers, step
from tests.support.optimizers import OPTIMIZERS, outcome

UPDATES = 3


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_static_freezing(name: str) -> None:
    assert outcome(name, "BOT34") == "frozen bits equal"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_adaptive_freezing(name: str) -> None:
    refused = "refused: keeps one state for all parameters"
    assert outcome(name, "ADT-L34") == (refused if name == "LBFGS" else "frozen bits equal, moments kept")


def test_every_optimiser_of_torch_is_tried() -> None:
    classes = {
        name
        for name, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer)
    }
    # It accepts sparse gradients only.
    assert classes - {"Optimizer", "SparseAdam"} <= {name.split(" ")[0] for name in OPTIMIZERS}


def accumulated(every: int) -> Iterator[tuple[nn.Module, torch.optim.Optimizer, AdaptiveFreezing]]:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=every)
    model = ThreeLayers()
    adaptive = AdaptiveFreezing(model, "ADT-L34", probe_steps=UPDATES)
    prepared, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-2))
    for number in range(every * (UPDATES + 2)):
        with accelerator.accumulate(prepared):
            ids = torch.randint(0, 20, (8, 5), generator=torch.Generator().manual_seed(number))
            accelerator.backward(nn.functional.cross_entropy(prepared(ids), ids[:, 0] % 2))
            optimizer.step()
            optimizer.zero_grad()
            yield model, optimizer, adaptive


def scaled(power: int, fused: bool) -> Iterator[tuple[nn.Module, torch.optim.Optimizer, AdaptiveFreezing]]:
    model = ThreeLayers()
    adaptive = AdaptiveFreezing(model, "ADT-L34", probe_steps=UPDATES)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**power)
    for number in range(40):
        ids = torch.randint(0, 20, (8, 5), generator=torch.Generator().manual_seed(number))
        scaler.scale(nn.functional.cross_entropy(model(ids), ids[:, 0] % 2)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        yield model, optimizer, adaptive


LOOPS: dict[str, Callable[[], Iterator[Any]]] = {
    "accumulation of 1": lambda: accumulated(1),
    "accumulation of 2": lambda: accumulated(2),
    "accumulation of 8": lambda: accumulated(8),
    "loss scaler": lambda: scaled(127, False),
    "loss scaler, fused": lambda: scaled(127, True),
}


@pytest.mark.parametrize("name", LOOPS)
def test_the_probe_counts_updates(name: str) -> None:
    updates, calls, before = 0, 0, None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for model, optimizer, adaptive in LOOPS[name]():
            before = before if before is not None else ThreeLayers().score.weight
            updates += not torch.equal(model.score.weight, before)
            before = model.score.weight.detach().clone()
            calls += 1
            plan = adaptive.step(optimizer)
            assert (plan is not None) is (updates == UPDATES)
            if plan is not None:
                break
    assert updates == UPDATES
    empty = [w for w in caught if "a step changed no weight" in str(w.message)]
    assert len(empty) == (1 if calls > updates else 0)


def test_schedule_free_optimisers_freeze_the_average() -> None:
    model = ThreeLayers()
    adaptive = AdaptiveFreezing(model, "ADT-L67", probe_steps=UPDATES)
    optimizer = schedulefree.AdamWScheduleFree(model.parameters(), lr=1e-2)
    optimizer.train()
    for number in range(UPDATES):
        step(model, optimizer, number)
        if number == UPDATES - 1:
            optimizer.eval()
            average = {n: p.detach().clone() for n, p in model.named_parameters()}
            optimizer.train()
        adaptive.step(optimizer)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert len(frozen) == 2 * 3
    for name, parameter in model.named_parameters():
        at_average = torch.allclose(parameter, average[name], rtol=0, atol=1e-7)
        assert at_average is (name in frozen), name
    optimizer.eval()
    for name in frozen:
        torch.testing.assert_close(model.get_parameter(name), average[name], rtol=0, atol=1e-7)


def test_an_optimiser_that_lacks_parameters_is_refused() -> None:
    model = ThreeLayers()
    adaptive = AdaptiveFreezing(model, "ADT-L34")
    optimizer = torch.optim.AdamW([p for n, p in model.named_parameters() if not n.startswith("score")])
    step(model, optimizer, 0)
    with pytest.raises(StrategyError, match=r"lacks 2 of the parameters.*\(score\.weight, score\.bias\)"):
        adaptive.step(optimizer)


def test_more_than_the_models_parameters_may_be_held() -> None:
    model, extra = ThreeLayers(), nn.Parameter(torch.ones(2))
    adaptive = AdaptiveFreezing(model, "ADT-L34", probe_steps=1, freeze_embeddings="yes")
    optimizer = torch.optim.AdamW([*model.parameters(), extra], lr=1e-2, weight_decay=0.1)
    embeddings = model.embed.weight.detach().clone()
    step(model, optimizer, 0)
    assert adaptive.step(optimizer) is not None
    assert any(p is extra for p in optimizer.param_groups[0]["params"])
    step(model, optimizer, 1)
    assert torch.equal(model.embed.weight, embeddings)


def test_names_follow_their_parameters() -> None:
    model = ThreeLayers()
    adaptive = AdaptiveFreezing(model, "ADT-L34", probe_steps=1)
    optimizer = torch.optim.AdamW(model.named_parameters(), lr=1e-2)
    step(model, optimizer, 0)
    adaptive.step(optimizer)
    (group,) = optimizer.param_groups
    names = {id(p): n for n, p in model.named_parameters()}
    assert group["param_names"] == [names[id(p)] for p in group["params"]]
    assert len(group["params"]) == len(names) - 3
    optimizer.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("both", [True, False])
def test_several_optimisers(both: bool) -> None:
    model = ThreeLayers()
    adaptive = AdaptiveFreezing(model, "ADT-L34", probe_steps=1)
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and n.startswith("layers")]
    rest = [p for p in model.parameters() if not any(p is m for m in matrices)]
    muon, adamw = torch.optim.Muon(matrices, lr=1e-2), torch.optim.AdamW(rest, lr=1e-2)
    for number in range(3):
        adamw.zero_grad()
        step(model, muon, number)
        adamw.step()
        if number == 0:
            # Gradients were dropped by the first one's step; train the rest once more.
            ids = torch.arange(10).view(2, 5)
            nn.functional.cross_entropy(model(ids), torch.tensor([0, 1])).backward()
            adamw.step()
        adaptive.step(muon, adamw) if both else adaptive.step(muon)
        if number == 0:
            frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    assert len(frozen) == 3
    assert all(torch.equal(model.get_parameter(n), p) for n, p in frozen.items())


def test_an_optimiser_that_moves_frozen_weights_is_named() -> None:
    class Careless(torch.optim.SGD):
        def __init__(self, parameters: Any):
            self.own = list(parameters)
            super().__init__(self.own, lr=1e-2)

        def step(self, closure: Any = None) -> None:
            super().step()
            with torch.no_grad():
                for parameter in self.own:
                    parameter.mul_(0.99)

    model = ThreeLayers()
    adaptive = AdaptiveFreezing(model, "ADT-L34", probe_steps=1)
    optimizer = Careless(model.parameters())
    step(model, optimizer, 0)
    adaptive.step(optimizer)
    step(model, optimizer, 1)
    with pytest.raises(StrategyError, match="Careless has moved frozen weights"):
        adaptive.step(optimizer)


def test_models_without_their_data_are_refused() -> None:
    with torch.device("meta"):
        absent = ThreeLayers()
    offloaded = ThreeLayers()
    cpu_offload(offloaded, execution_device=torch.device("cpu"))
    for model in (absent, offloaded):
        with pytest.raises(StrategyError, match=r"embed\.weight is on the meta device or offloaded"):
            AdaptiveFreezing(model, "ADT-L34")


@pytest.fixture
def process_group() -> Iterator[None]:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    store = dist.HashStore()
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_freezing_comes_before_distributed_data_parallel(process_group: None) -> None:
    model = ThreeLayers()
    assert freeze(model, "BOT34").frozen_layers == (0,)
    wrapped = DistributedDataParallel(model)
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW(wrapped.parameters(), lr=1e-2)
    for number in range(3):
        step(wrapped, optimizer, number)
    assert all(torch.equal(model.get_parameter(n), p) for n, p in frozen.items())
    inside = nn.Sequential(wrapped)
    for attempt in (
        lambda: freeze(wrapped, "BOT34"),
        lambda: AdaptiveFreezing(wrapped, "ADT-L34"),
        lambda: freeze(inside, "BOT34"),
    ):
        with pytest.raises(StrategyError, match="freeze the model before you wrap it"):
            attempt()


def test_adaptive_freezing_in_several_processes_is_refused(
    monkeypatch: pytest.MonkeyPatch, process_group: None
) -> None:
    model = ThreeLayers()
    adaptive = AdaptiveFreezing(model, "ADT-L34")
    optimizer = torch.optim.AdamW(model.parameters())
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    step(model, optimizer, 0)
    with pytest.raises(StrategyError, match="ADT-L34 can freeze in one process only, not in 2"):
        adaptive.step(optimizer)
