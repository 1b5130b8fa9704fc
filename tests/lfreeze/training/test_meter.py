"""The meter against sizes that are known by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lfreeze.training.meter import Meter, optimiser_bytes, tensor_bytes

CPU = torch.device("cpu")


def test_static_bytes_count_shared_storage_once() -> None:
    weight = nn.Parameter(torch.zeros(10, 10))
    assert tensor_bytes([weight, weight, weight.data.view(-1)[:3]]) == 400
    model = nn.Linear(10, 10)
    model.tied = model.weight  # type: ignore[assignment]
    assert Meter(model, CPU).static_bytes == 440


def test_memory_of_a_step_is_exact_to_the_byte() -> None:
    """y = Wx for one vector: gradient, moments and activation have known sizes."""
    n = 256
    model = nn.Linear(n, n, bias=False)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    meter = Meter(model, CPU)
    x = torch.randn(64, n)
    for _ in range(2):
        meter.begin_phase()
        with meter.step(optimizer, memory=True):
            with meter.forward():
                loss = model(x).square().sum()
            loss.backward()
            meter.after_backward(model.parameters())
            optimizer.step()
            optimizer.zero_grad()
        del loss
    used = meter.memory()
    weight = 4 * n * n
    assert used.gradient == weight
    assert used.optimiser == 2 * weight + 4
    # Held at the end of the forward pass: the product that square() saves, and the loss.
    assert used.activation == pytest.approx(4 * 64 * n, abs=256)
    # The peak holds moments, the gradient, and at least the optimiser's own temporary of one weight.
    assert used.training >= 3 * weight
    assert used.training <= 6 * weight
    assert used.peak_allocated == used.training + meter.static_bytes
    assert used.peak_reserved is None
    assert optimiser_bytes(optimizer) == used.optimiser


def test_memory_needs_a_measured_step() -> None:
    meter = Meter(nn.Linear(2, 2), CPU)
    with pytest.raises(RuntimeError, match="the memory of no step was measured"):
        meter.memory()
