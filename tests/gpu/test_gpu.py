"""What only a GPU shows: shares of one, the wall around each, measured memory. `python -m pytest -m gpu` runs it."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import torch

from reproduce.plan.cost import GIB
from tests.reproduce.run.test_sweep import SMALL, rows
from tests.support.program import Program

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch can use no GPU on this machine"),
]

STRATEGIES = "ALL,LoRA,BOT50,TOP50,ADT-L50"


def share_of(gibibytes: float) -> str:
    """The part of this machine's first GPU that has this much memory, as the option takes it."""
    return f"{gibibytes * GIB / torch.cuda.get_device_properties(0).total_memory:.4f}"


def test_trials_that_share_a_gpu_say_so_and_are_repeated_bit_by_bit(
    reproduce: Program, tmp_path: Path
) -> None:
    share = share_of(4)
    arguments = ("run", "--tasks", "tiny-cb", "--strategies", STRATEGIES, "--seeds", "42,43", *SMALL,
                 "--gpus-per-trial", share)  # fmt: skip
    for name in ("a", "b"):
        reproduce(*arguments, "--artifacts", str(tmp_path / name))
    first, second = rows(tmp_path / "a"), rows(tmp_path / "b")
    for frame in (first, second):
        assert frame.height == 10
        assert set(frame["status"]) == {"ok"}
        assert set(frame["device"]) == {"cuda"}
        assert set(frame["memory_method"]) == {"cuda allocator"}
        assert set(frame["gpu_share"]) == {float(share)}
        assert set(frame["exclusive"]) == {False}
        assert set(frame["gpu_name"]) == {torch.cuda.get_device_name(0)}
        proof = frame.select("frozen_unchanged", "every_trainable_got_gradient", "optimiser_holds_trainable")
        assert proof.to_numpy().all()
        assert (frame["backward_depth"] == frame["planned_backward_depth"]).all()
    for column in ("validation_accuracy", "training_bytes", "static_bytes", "frozen_layers"):
        assert first[column].to_list() == second[column].to_list(), column


def test_a_trial_that_outgrows_its_share_fails_alone(reproduce: Program, tmp_path: Path) -> None:
    """ALL of SmolLM2-135M needs 8 GiB at this batch, here it is given 2; what runs beside it goes on."""
    reproduce("run", "--models", "smollm2-135m,tiny-gemma", "--weights", "random", "--tasks", "tiny-cb",
              "--strategies", "ALL,BOT75", "--seeds", "42,43", "--set", "padding=max_length", "--set", "steps=8",
              "--set", "batch_size=64", "--set", "probe_steps=3", "--gpus-per-trial", share_of(2),
              "--artifacts", str(tmp_path / "a"), expect=1)  # fmt: skip
    frame = rows(tmp_path / "a")
    by_model = {name: frame.filter(pl.col("model") == name) for name in ("smollm2-135m", "tiny-gemma")}
    large = by_model["smollm2-135m"].filter(pl.col("strategy") == "ALL")
    assert large["status"].to_list() == ["oom", "oom"]
    assert set(by_model["tiny-gemma"]["status"]) == {"ok"}


def test_measured_memory_is_near_the_closed_form(reproduce: Program, tmp_path: Path) -> None:
    """Alone on the GPU, at a size where CUDA's own workspaces are small beside the model."""
    reproduce("run", "efficiency", "--models", "smollm2-135m", "--weights", "random", "--seeds", "42", "--strategies",
              STRATEGIES, "--set", "steps=20", "--artifacts", str(tmp_path / "a"))  # fmt: skip
    frame = rows(tmp_path / "a")
    assert frame["exclusive"].all()
    assert set(frame["gpu_share"]) == {1.0}
    ratio = frame["training_bytes"] / frame["predicted_training_bytes"]
    assert ratio.is_between(0.8, 1.25).all(), ratio.to_list()
    training = dict(frame.select("strategy", "training_bytes").iter_rows())
    assert training["BOT50"] < training["TOP50"] < training["ALL"]


def test_the_doctor_sees_the_gpu(reproduce: Program) -> None:
    output = reproduce("doctor", "embedded")
    assert torch.cuda.get_device_name(0) in output
    assert "this machine can run it" in output
