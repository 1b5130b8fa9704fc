"""The predicted cost of a space, and the display of a sweep."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from reproduce.plan.cost import GIB, assumptions, gpu_share, largest_share, plan_space, totals
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
    assert largest_share(space, 80 * GIB) == max(t.gpu_share for t in trials)
    assert totals(trials)["trials"] == 17
    assert totals(trials)["device_hours"] == pytest.approx(sum(t.seconds for t in trials) / 3600)
    slower = plan_space(space, assumptions(space, 80, 25))
    assert slower[0].seconds == pytest.approx(2 * trials[0].seconds)


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
