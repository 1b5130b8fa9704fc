"""What only a GPU shows: shares of one, the wall around each, measured memory. `python -m pytest -m gpu` runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch

from reproduce.plan.cost import GIB
from reproduce.plan.inputs import find_inputs, trial_specs
from reproduce.plan.search_space import load_space
from reproduce.process import set_environment
from reproduce.run.worker import TrialWorker
from tests.reproduce.run.test_sweep import SMALL, rows
from tests.reproduce.run.test_worker import run
from tests.support.program import Program

# cuBLAS reads it when it is first used.
set_environment()
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
        assert frame["deterministic_algorithms"].all()
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


MEASURED = ("static_bytes", "training_bytes", "activation_bytes", "gradient_bytes", "optimiser_bytes",
            "probe_training_bytes")  # fmt: skip


@pytest.mark.parametrize("model", ["tiny-gemma", "tiny-phi", "tiny-minicpm"])
def test_a_workers_first_trial_has_the_bits_and_the_memory_of_its_later_ones(model: str) -> None:
    """The workspaces of matrix products, which outlive a trial, have 32 MiB; how the allocator splits its blocks
    moves a sum by less than one."""
    narrow = {
        "models": [model],
        "tasks": ["tiny-cb"],
        "strategies": ["ALL", "LoRA", "ADT-L50"],
        "seeds": ["42"],
    }
    space = load_space("embedded-full", narrow, {"steps": "12", "padding": "max_length"})
    inputs = find_inputs(space)
    specs, worker = trial_specs(space, inputs), TrialWorker()
    first, again = ([run(worker, spec, inputs) for spec in specs] for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert one.row.status == "ok", one.row.error_message
        assert one.row.deterministic_algorithms
        for name in MEASURED:
            before, after = getattr(one.row, name), getattr(other.row, name)
            assert before == after or abs(before - after) < 2**20, (one.row.strategy, name)
        assert one.steps["loss"] == other.steps["loss"]
        assert one.predictions == other.predictions


def test_the_phase_after_the_switch_reserves_less_than_the_probe() -> None:
    """At a size where the allocator's segments, of 20 MiB and more, are small beside a phase."""
    narrow = {"models": ["smollm2-135m"], "tasks": ["tiny-cb"], "strategies": ["ADT-L75"], "seeds": ["42"]}
    space = load_space("efficiency", narrow, {"steps": "12"}, weights="random")
    inputs = find_inputs(space)
    (spec,) = trial_specs(space, inputs)
    row = run(TrialWorker(), spec, inputs).row
    assert row.status == "ok", row.error_message
    peaks = (
        row.peak_allocated_bytes,
        row.peak_reserved_bytes,
        row.probe_peak_bytes,
        row.probe_reserved_bytes,
    )
    allocated, reserved, probe_allocated, probe_reserved = (peak or 0 for peak in peaks)
    assert 0 < allocated <= reserved < probe_reserved
    assert reserved < probe_allocated <= probe_reserved


def test_a_matrix_product_without_fixed_workspaces_costs_the_promise_not_the_trial() -> None:
    """torch refuses it in strict mode; its setting is read once, so the trial has a process of its own."""
    code = (
        "from tests.reproduce.run.test_worker import *\n"
        "space, inputs = small_space('ALL')\n"
        "row = run(TrialWorker(), *trial_specs(space, inputs), inputs).row\n"
        "print(row.status, row.deterministic_algorithms, row.error_message)"
    )
    environment = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":1024:4"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout.split()[:2] == ["ok", "False"], done.stdout + done.stderr


def test_the_doctor_sees_the_gpu(reproduce: Program) -> None:
    output = reproduce("doctor", "embedded")
    assert torch.cuda.get_device_name(0) in output
    assert "this machine can run it" in output


@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed"])
@pytest.mark.parametrize("model", ["tiny-gemma", "tiny-minicpm"])
def test_layouts_and_the_prefix_cache_give_the_plain_losses(model: str, precision: str) -> None:
    """Packed rows use variable-length attention in bf16 only."""
    losses = []
    for changes in (
        {},
        {"padding": "packed"},
        {"padding": "bucketed", "prefix_cache": "all", "micro_batch_size": "8"},
    ):
        narrow = {"models": [model], "tasks": ["tiny-cb"], "strategies": ["BOT50"], "seeds": ["42"]}
        space = load_space("embedded", narrow, {"steps": "10", "precision": precision, **changes})
        inputs = find_inputs(space)
        result = run(TrialWorker(), trial_specs(space, inputs)[0], inputs)
        assert result.row.status == "ok", result.row.error_message
        assert result.row.deterministic_algorithms
        losses.append(torch.tensor(result.steps["loss"]))
    tolerance = 1e-4 if precision == "fp32" else 0.02
    for other in losses[1:]:
        torch.testing.assert_close(other, losses[0], rtol=tolerance, atol=tolerance)
