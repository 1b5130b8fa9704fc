"""A repeated trial: the same numbers on a sound machine, and the end of the sweep once an error is planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.tune.search import Searcher
from torch import nn

from lfreeze.training import loop
from reproduce.plan.inputs import trial_specs
from reproduce.plan.spec import TrialSpec
from reproduce.run.canary import Canary
from reproduce.run.dispatcher import Dispatcher
from reproduce.run.inline import run_inline
from reproduce.run.outcome import SweepOutcome
from reproduce.run.placement import Resources
from reproduce.run.results import SweepOptions, TrialLogger
from reproduce.store.parquet import TrialResult, read_trials
from reproduce.store.trial_row import TrialRow
from tests.reproduce.report.synthetic import trial_row
from tests.reproduce.run.test_dispatcher import Cluster, assigned, spec
from tests.reproduce.run.test_sweep import FEW_EXAMPLES, ONE_WORKER, SMALL
from tests.reproduce.run.test_worker import small_space
from tests.support.program import Program


def result(seed: int = 42, loss: float = 0.5, logit: float = 0.1, **changes: Any) -> TrialResult:
    row = TrialRow.from_columns(trial_row("ALL", seed=seed, **changes))
    steps = {"step": [1], "loss": [loss], "grad_norm": [1.0]}
    predictions = {"example_id": ["0"], "prediction": [0], "logits": [[logit, 0.0]]}
    return TrialResult(replace(row, deterministic_algorithms=True), steps, predictions)


def watched(again: TrialResult) -> Canary:
    """After two trials and the repeat of the first."""
    canary = Canary(2)
    for seed in (42, 43):
        assert canary.take_due() is None
        canary.finished("ALL", result(seed))
    assert canary.take_due() == result(42).row.run_id
    assert canary.take_due() is None
    assert canary.is_repeat(again)
    canary.finished("ALL", again)
    return canary


def test_an_equal_repeat_is_counted_and_no_trial() -> None:
    canary = watched(result())
    assert (canary.problem, canary.repeats) == (None, 1)
    canary.finished("ALL", result(44))
    assert canary.take_due() is None
    canary.finished("ALL", result(45))
    assert canary.take_due() == result(42).row.run_id


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss": 0.5000000000000001}, "has other losses or gradient norms"),
        ({"logit": 0.10000001}, "has other logits"),
        ({"validation_accuracy": 0.123}, "has another accuracy or other frozen layers"),
        ({"status": "error"}, "ended as error"),
    ],
)
def test_any_bit_that_moves_is_a_problem(changes: dict[str, Any], words: str) -> None:
    canary = watched(result(**changes))
    assert canary.repeats == 0
    assert canary.problem is not None
    assert canary.problem.startswith("the repeated trial ALL ")
    assert words in canary.problem


def test_other_hardware_is_not_compared() -> None:
    canary = watched(result(loss=0.6, cpu_model="Another CPU"))
    assert (canary.problem, canary.repeats) == (None, 0)


def test_a_failed_trial_and_one_without_deterministic_algorithms_are_not_repeated() -> None:
    canary = Canary(1)
    canary.finished("ALL", result(42, status="error"))
    other = result(43)
    canary.finished("ALL", replace(other, row=replace(other.row, deterministic_algorithms=False)))
    assert canary.take_due() is None
    canary.finished("ALL", result(44))
    assert canary.take_due() == result(44).row.run_id


def test_the_dispatcher_gives_the_repeat_next(monkeypatch: pytest.MonkeyPatch) -> None:
    Cluster(monkeypatch, a={})
    specs = [spec("ALL", seed) for seed in (42, 43)]
    canary = Canary(2)
    dispatcher = Dispatcher(specs, Resources(), alone=True, canary=canary)
    order = []
    for i in range(3):
        run_id = assigned(dispatcher.suggest(str(i))).run_id
        order.append(run_id)
        dispatcher.on_trial_complete(str(i), {"done": True})
        done = result()
        canary.finished("ALL", replace(done, row=replace(done.row, run_id=run_id)))
    assert order == [specs[0].run_id, specs[1].run_id, specs[0].run_id]
    assert canary.repeats == 1
    assert dispatcher.suggest("x") == Searcher.FINISHED


def inline(root: Path, *loggers: TrialLogger) -> SweepOutcome:
    """Three trials in this process, with a repeat after each."""
    space, inputs = small_space("ALL,BOT50", seeds="42,43")
    specs = list(trial_specs(space, inputs))[:3]
    attempts = {each.run_id: 1 for each in specs}
    root.mkdir()
    return run_inline(specs, inputs, root, SweepOptions(attempts, loggers=loggers, canary=1), gpu_share=0)


def test_repeats_of_a_sound_machine_are_equal(tmp_path: Path) -> None:
    outcome = inline(tmp_path / "sound")
    assert (outcome.done, outcome.repeats, outcome.problems) == (3, 3, [])
    assert read_trials([tmp_path / "sound"]).frame.height == 3


def test_an_error_planted_in_mid_sweep_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the second trial on, the machine computes one number of each gradient wrong."""
    clip: Callable[..., torch.Tensor] = loop.clip_gradients

    def wrong(model: nn.Module, recipe: Any) -> torch.Tensor:
        norm = clip(model, recipe)
        head = [p.grad for p in model.parameters() if p.grad is not None][-1]
        head.view(-1)[0] += 1e-3
        return norm

    def plant(trial: TrialSpec, done: TrialResult) -> None:
        if len(trials) == 1:
            monkeypatch.setattr(loop, "clip_gradients", wrong)
        trials.append(trial)

    trials: list[TrialSpec] = []
    outcome = inline(tmp_path / "broken", plant)
    monkeypatch.undo()
    (problem,) = outcome.problems
    assert "has other losses or gradient norms" in problem
    assert "this machine no longer computes what it did" in problem
    # The third trial was not started.
    assert (outcome.done, outcome.repeats) == (2, 1)
    assert read_trials([tmp_path / "broken"]).frame.height == 2


@pytest.mark.sweep
def test_a_sweep_on_ray_repeats_its_first_trial(reproduce: Program, tmp_path: Path) -> None:
    told = reproduce("run", "--tasks", "tiny-cb", "--strategies", "ALL,BOT50", "--seeds", "42", *SMALL,
                     *ONE_WORKER, *FEW_EXAMPLES, "--canary", "1", "--no-report", "--artifacts",
                     tmp_path / "artifacts")  # fmt: skip
    assert "The first trial was repeated 2 times, with the same numbers to the last bit." in told
    assert read_trials([tmp_path / "artifacts"]).frame.height == 2
