"""Evaluations during training: they change nothing, and say what a training that ends there would."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from lfreeze.recipe import Recipe
from lfreeze.strategy import Strategy
from lfreeze.training import evaluation
from lfreeze.training.loop import train
from lfreeze.training.record import TrainingRecord
from tests.lfreeze.training.test_loop import CPU, make_data, make_model


def trained(recipe: Recipe, strategy: str) -> tuple[TrainingRecord, dict[str, torch.Tensor]]:
    """A training with dropout; without, where a prefix is reused, since its layers compute the same twice."""
    cached = recipe.prefix_cache != "off"
    model = make_model(attention_dropout=0.0 if cached else 0.2)
    if not cached:
        # Randomness in every forward pass: an evaluation that drew from the training's would move its dropout.
        model.register_forward_pre_hook(lambda *_: (torch.rand(3), None)[1])
    record = train(model, make_data(), recipe, Strategy.parse(strategy), 3, CPU)
    return record, dict(model.state_dict())


@pytest.mark.parametrize(
    ("strategy", "values"),
    [
        ("ALL", {}),
        ("LoRA", {}),
        ("ADT-L50", {"probe_steps": 4}),
        ("BOT50", {"prefix_cache": "all"}),
    ],
)
def test_training_is_the_same_to_the_last_bit(strategy: str, values: dict[str, Any], recipe: Recipe) -> None:
    recipe = replace(recipe, steps=9, timing_warmup_steps=2, **values)
    plain, weights = trained(recipe, strategy)
    record, others = trained(replace(recipe, evaluate_every=2), strategy)
    assert [(s.loss, s.grad_norm, s.phase) for s in record.steps] == [
        (s.loss, s.grad_norm, s.phase) for s in plain.steps
    ]
    assert record.predictions == plain.predictions
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert (record.memory, record.probe_memory, record.proof) == (
        plain.memory,
        plain.probe_memory,
        plain.proof,
    )
    assert record.prefix_layers == plain.prefix_layers == (2 if strategy == "BOT50" else 0)
    assert plain.evaluations == []
    assert [e.step for e in record.evaluations] == [2, 4, 6, 8, 9]


def test_an_evaluation_is_that_of_a_training_which_ends_there(recipe: Recipe) -> None:
    recipe = replace(recipe, steps=8, schedule="constant", evaluate_every=3)
    record, _ = trained(recipe, "BOT50")
    assert [e.step for e in record.evaluations] == [3, 6, 8]
    for entry in record.evaluations:
        alone, _ = trained(replace(recipe, steps=entry.step, evaluate_every=0), "BOT50")
        predictions = alone.predictions
        assert entry.accuracy == predictions.accuracy
        losses = [
            math.log(sum(map(math.exp, row))) - row[label]
            for row, label in zip(predictions.logits, predictions.labels, strict=True)
        ]
        assert entry.loss == pytest.approx(sum(losses) / len(losses), rel=1e-9)


def test_times_leave_evaluations_out(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only evaluations advance, training takes no time."""
    now = [0.0]
    real = evaluation.evaluate

    def slow(*arguments: Any) -> Any:
        now[0] += 100.0
        return real(*arguments)

    monkeypatch.setattr(evaluation, "evaluate", slow)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    recipe = replace(recipe, steps=8, timing_warmup_steps=1)
    plain, _ = trained(recipe, "ALL")
    now[0] = 0.0
    record, _ = trained(replace(recipe, evaluate_every=3), "ALL")
    assert [e.seconds for e in record.evaluations] == [0.0, 0.0, 0.0]
    assert (record.train_seconds, record.eval_seconds) == (0.0, 300.0)
    # A step that follows an evaluation finds its caches cold.
    before, after = ({s.step for s in each.steps if s.timed} for each in (plain, record))
    assert after == before - {4, 7} != before
