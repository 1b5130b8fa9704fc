"""The freeze proof finds every lie, and the fingerprint every changed bit."""

from __future__ import annotations

import pytest
import torch

from lfreeze import freeze
from lfreeze.freeze_proof import FreezeProof, ProofResult, fingerprint
from tests.lfreeze.test_freezing import backward
from tests.lfreeze.training.test_loop import make_model


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.bool]
)
def test_equal_bits_have_equal_fingerprints(dtype: torch.dtype) -> None:
    tensor = (torch.arange(60) % 7).reshape(6, 10).to(dtype)
    assert fingerprint(tensor) == fingerprint(tensor.clone())
    assert fingerprint(tensor.t().contiguous().t()) == fingerprint(tensor)
    changed = tensor.clone()
    changed[3, 3] = not changed[3, 3]
    assert fingerprint(changed) != fingerprint(tensor)
    assert fingerprint(torch.zeros(0, dtype=dtype)) == fingerprint(torch.ones(0, dtype=dtype))


def test_small_and_patterned_changes_are_detected() -> None:
    tensor = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    original = fingerprint(tensor)
    bits = tensor.view(torch.int32)

    def changed(positions: list[int], by: list[int]) -> int:
        copy = bits.clone()
        copy[positions] += torch.tensor(by, dtype=torch.int32)
        return fingerprint(copy.view(torch.float32))

    assert all(changed([i], [1]) != original for i in range(0, 1000, 37))
    assert changed([10, 11, 12], [1, -2, 1]) != original
    assert changed([10, 20], [1, -1]) != original
    swapped = tensor.clone()
    swapped[[4, 5]] = tensor[[5, 4]]
    assert fingerprint(swapped) != original
    assert fingerprint(tensor.roll(1)) != original
    assert fingerprint(torch.zeros(3)) != fingerprint(-torch.zeros(3))
    assert fingerprint(torch.zeros(3)) != fingerprint(torch.zeros(4))


def test_the_fingerprint_covers_all_chunks() -> None:
    tensor = torch.zeros((1 << 22) + 5, dtype=torch.uint8)
    before = fingerprint(tensor)
    tensor[-1] = 1
    assert fingerprint(tensor) != before


@pytest.mark.parametrize(
    ("size", "value"),
    [
        (1, 1),
        (1 << 18, 13248749315068810624),
        ((1 << 18) + 1, 3846372083506369921),
        (600_000, 16563105879704555712),
    ],
)
def test_the_fingerprint_does_not_depend_on_how_many_chunks_are_taken_at_once(size: int, value: int) -> None:
    # Fixed values: fingerprints of results that exist must stay.
    tensor = torch.arange(size, dtype=torch.float32)
    assert {fingerprint(tensor, at_once) for at_once in (None, 1, 2, 64)} == {value}


def observe(lie: str) -> ProofResult:
    """Two steps of BOT50 with one thing done wrong."""
    model = make_model().train()
    freeze(model, "BOT50")
    trains = [p for p in model.parameters() if p.requires_grad]
    if lie == "optimiser misses one":
        optimizer = torch.optim.AdamW(trains[1:])
    elif lie == "optimiser holds a frozen one":
        optimizer = torch.optim.AdamW([*trains, model.model.layers[0].mlp.up_proj.weight])
    else:
        optimizer = torch.optim.AdamW(trains)
    proof = FreezeProof(model)
    for _ in range(2):
        handles = proof.observe_depth()
        backward(model)
        for handle in handles:
            handle.remove()
        if lie == "one never gets a gradient":
            model.model.norm.weight.grad = None
        proof.after_backward()
        optimizer.step()
        optimizer.zero_grad()
    if lie == "a frozen one moves by one bit":
        model.model.layers[1].mlp.up_proj.weight.data.view(torch.int32)[0, 0] ^= 1
    if lie == "state of a frozen one is kept":
        optimizer.state[model.model.layers[0].mlp.up_proj.weight] = {"exp_avg": torch.zeros(1)}
    return proof.conclude(optimizer)


def test_the_proof_holds_for_a_correct_run() -> None:
    result = observe("none")
    assert result == ProofResult(True, True, True, 2)
    assert result.holds


@pytest.mark.parametrize(
    ("lie", "field"),
    [
        ("a frozen one moves by one bit", "frozen_unchanged"),
        ("one never gets a gradient", "every_trainable_got_gradient"),
        ("optimiser misses one", "optimiser_holds_trainable"),
        ("optimiser holds a frozen one", "optimiser_holds_trainable"),
        ("state of a frozen one is kept", "optimiser_holds_trainable"),
    ],
)
def test_every_violation_is_detected(lie: str, field: str) -> None:
    result = observe(lie)
    assert not result.holds
    false = [
        n
        for n in ("frozen_unchanged", "every_trainable_got_gradient", "optimiser_holds_trainable")
        if not getattr(result, n)
    ]
    assert false == [field]
