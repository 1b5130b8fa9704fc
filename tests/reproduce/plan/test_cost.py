"""The predicted cost of a space, and the display of a sweep."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from lfreeze.errors import InputError
from reproduce.plan.cost import GIB, assumptions, gpu_share, plan_space, totals
from reproduce.plan.search_space import load_space
from reproduce.plan.spec import Factors, Inputs, TrialSpec
from reproduce.run.progress import SweepProgress, clock
from reproduce.store.row_values import started_row


@pytest.mark.parametrize(
    ("peak_gib", "share"),
    [(1, 0.0208), (30, 0.5), (15, 0.25), (22, 0.3333), (60, 1.0), (80, 1.15625)],
)
def test_shares_are_whole_parts_of_a_gpu(peak_gib: int, share: float) -> None:
    """(peak x 1.15 + 0.5 GiB) of 80 GiB, rounded up to one n-th; above 1 it does not fit."""
    assert gpu_share(peak_gib * GIB, 80 * GIB) == share


def test_equal_trials_fill_a_gpu_and_no_more() -> None:
    for peak in range(1, 70):
        share = gpu_share(peak * GIB, 80 * GIB)
        fit = int(1 / share)
        assert fit * share <= 1
        assert fit * (peak * 1.15 + 0.5) <= 80


def test_a_space_is_sized_by_its_largest_trial() -> None:
    space = load_space("paper", {"models": ["gemma-2b"], "tasks": ["rte"], "seeds": ["42"]})
    trials = plan_space(space, assumptions(space, 80, None))
    assert totals(trials)["trials"] == 17
    assert totals(trials)["device_hours"] == pytest.approx(sum(t.seconds for t in trials) / 3600)
    fast, slow = (plan_space(space, assumptions(space, 80, rate))[0].seconds for rate in (50, 25))
    between_trials = 2 * fast - slow
    assert 0 < between_trials < 0.2


def test_an_adaptive_strategy_needs_what_all_needs() -> None:
    space = load_space("paper", {"models": ["gemma-2b"], "tasks": ["rte"], "seeds": ["42"]})
    trials = {t.factors.strategy: t for t in plan_space(space, assumptions(space, 80, None))}
    whole, adaptive = trials["ALL"], trials["ADT-L50"]
    assert adaptive.training_bytes == whole.training_bytes
    assert adaptive.gpu_share == whole.gpu_share
    assert adaptive.after_switch_bytes is not None
    assert adaptive.after_switch_bytes < 0.9 * whole.training_bytes
    assert {t.factors.strategy for t in trials.values() if t.after_switch_bytes} == {
        f"ADT-{kind}{percent}" for kind in "LH" for percent in (25, 50, 75)
    }


def test_times_read_like_a_clock() -> None:
    assert [clock(s) for s in (0, 59.6, 61, 3723)] == ["0:00", "1:00", "1:01", "1:02:03"]


def test_without_a_terminal_a_sweep_prints_its_counts_in_lines() -> None:
    console = Console(file=io.StringIO(), width=200)
    with SweepProgress(total=4, before=2, skipped=3, console=console) as progress:
        factors = Factors("tiny-gemma", "tiny-cb", "ALL", 1)
        spec = TrialSpec(factors, load_space("embedded").recipe, Inputs("m", "w", "t", "d", "f"), "test")
        row = started_row(spec, 1)
        progress.finished(
            "m/t/ALL/seed1", replace(row, status="ok", validation_accuracy=0.5, total_seconds=1.0)
        )
        progress.finished("m/t/BOT50/seed1", replace(row, status="oom"))
        progress.refresh(["m/t/TOP50/seed1"])
        assert progress.counts() == {"total": 9, "done": 3, "failed": 1, "skipped": 3, "running": 1}
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert "failed: m/t/BOT50/seed1: oom" in output
    assert "3 of 9 trials done, 1 failed, 3 skipped, 1 running" in output
    assert "left" in output


def test_a_named_gpu_sets_memory_and_rate_and_each_can_be_set_alone() -> None:
    space = load_space("paper")
    assert assumptions(space) == assumptions(space, gpu="h100")
    a100 = assumptions(space, gpu="A100-40")
    assert (a100.gpu_memory_bytes, a100.rate_source) == (40 * GIB, "a100-40")
    # As published: 458 and 199 TFLOP/s.
    rates = [assumptions(space, gpu=name).flops_per_second / 1e12 for name in ("h100", "a100-80")]
    assert rates == [pytest.approx(458, abs=1), pytest.approx(199, abs=1)]
    assert assumptions(space, 20, None, "a100-40").gpu_memory_bytes == 20 * GIB
    assert assumptions(space, None, 7, "a100-40").flops_per_second == 7e12
    fp32 = load_space("paper", {}, {"precision": "fp32"})
    assert assumptions(fp32, gpu="h100").flops_per_second < a100.flops_per_second
    with pytest.raises(InputError, match="--gpu 'gtx' is not one of h100, h200, a100-80, a100-40, l40s, l4"):
        assumptions(space, gpu="gtx")
    with pytest.raises(InputError, match="--gpu '' is not one of"):
        assumptions(space, gpu="")


def test_host_memory_is_the_model_and_the_snapshot_of_its_layers() -> None:
    axes = {"models": ["gemma-2b"], "tasks": ["rte"], "strategies": ["ALL", "ADT-L50"], "seeds": ["42"]}
    space = load_space("paper", axes)
    trials = plan_space(space, assumptions(space))
    whole, adaptive = trials
    # Gemma-2b has 2,506,172,416 parameters, of which 256,000 x 2,048 embed and 2,048 are the final norm's.
    layers = 2_506_172_416 - 256_000 * 2_048 - 2_048
    assert whole.host_bytes == 4 * (2_506_172_416 + 2 * 2_048)
    assert adaptive.host_bytes == whole.host_bytes + 4 * layers
    assert totals(trials)["host_bytes"] == adaptive.host_bytes


@pytest.mark.parametrize(("kept", "examples"), [("off", 0), ("evaluation", 277), ("all", 2_490 + 277)])
def test_host_memory_counts_the_output_of_frozen_layers(kept: str, examples: int) -> None:
    """128 tokens of 2,048 values in bf16 for each of RTE's texts; nothing where the embeddings train."""
    chosen = {"models": ["gemma-2b"], "tasks": ["rte"], "seeds": ["42"], "strategies": ["ALL", "BOT50"]}
    recipe = {"padding": "max_length", "max_length": "128", "prefix_cache": kept}
    space = load_space("paper", chosen, recipe)
    whole, bottom = plan_space(space, assumptions(space, 80, None))
    assert bottom.host_bytes == whole.host_bytes + 2 * examples * 128 * 2_048


def test_an_architecture_without_a_formula_is_planned(tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = {"model_type": "bert", "vocab_size": 500, "pad_token_id": 0, **sizes}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    space = load_space(
        "small", {"models": ["mine"], "tasks": ["rte"]}, model_paths={"mine": tmp_path}, weights="random"
    )
    trials = {t.factors.strategy: t for t in plan_space(space, assumptions(space))}
    assert trials["BOT50"].training_bytes < 0.7 * trials["ALL"].training_bytes
    assert max(trial.gpu_share for trial in trials.values()) == trials["ALL"].gpu_share
