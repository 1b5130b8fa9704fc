"""The plan's forecast of the claims that a space can decide, against the verdicts on such a space's trials."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from reproduce.plan.search_space import SearchSpace, load_space
from reproduce.plan.spec import Factors
from reproduce.report.analysis.claims import evidence_estimators, verdicts
from reproduce.report.analysis.decidable import summary, undecidable
from tests.reproduce.report.analysis.test_aggregates import frame
from tests.reproduce.report.synthetic import trial_row


@pytest.mark.parametrize(
    ("name", "narrow", "weights", "n_decided"),
    [
        ("paper", {}, None, 15),
        ("efficiency", {}, "random", 19),
        ("efficiency", {"seeds": ["42", "43"]}, "random", 11),
        ("efficiency", {"models": ["gemma-2b", "phi-2"], "seeds": ["42"]}, "random", 0),
        ("efficiency", {"strategies": ["ALL", "BOT25", "BOT50"]}, "random", 8),
    ],
)
def test_the_forecast_is_what_the_verdicts_need(
    name: str, narrow: dict[str, Any], weights: str | None, n_decided: int
) -> None:
    space = load_space(name, narrow, weights=weights)
    assert decided_as_forecast(space, ()) == n_decided


@pytest.mark.parametrize(
    ("name", "models", "strategies", "n_decided"),
    [
        ("paper", ("phi-2",), ("ALL",), 4),
        ("paper", ("gemma-2b", "phi-2"), ("BOT75",), 10),
        ("paper", ("gemma-2b", "phi-2", "minicpm-2b-128k"), ("ALL", "BOT75"), 2),
        ("efficiency", ("phi-2",), ("INT33",), 17),
        ("efficiency", ("gemma-2b",), ("ALL",), 0),
    ],
)
def test_trials_that_do_not_fit_the_gpu_decide_nothing(
    name: str, models: tuple[str, ...], strategies: tuple[str, ...], n_decided: int
) -> None:
    space = load_space(name)
    too_large = {f for f in space.factors() if f.model in models and f.strategy in strategies}
    assert decided_as_forecast(space, too_large) == n_decided
    lines = summary(space, too_large)
    assert lines[0].endswith("if every trial that fits succeeds.")
    assert any(f"the GPU is too small for trials of {models[0]}" in line for line in lines)


def decided_as_forecast(space: SearchSpace, left_out: Collection[Factors]) -> int:
    """How many claims can be decided, by forecast and equally by the verdicts on the other trials."""
    weights = {card.random for card in space.cards.values()}
    recipe = {
        f"recipe_{key}": getattr(space.recipe, key) for key in ("learning_rate", "precision", "padding")
    }
    recipe["recipe_max_validation_examples"] = space.recipe.max_validation_examples
    rows = [
        trial_row(
            f.strategy, f.model, f.task, f.seed, device="cuda", exclusive=space.exclusive,
            weights="random" if weights == {True} else "pretrained", **recipe,
        )
        for f in space.factors()
        if f not in left_out
    ]  # fmt: skip
    obstacles = undecidable(space, left_out)
    assert {v.claim.id: bool(v.reasons) for v in verdicts(evidence_estimators(frame(*rows)))} == {
        claim: bool(reasons) for claim, reasons in obstacles.items()
    }
    return sum(not reasons for reasons in obstacles.values())


def test_each_obstacle_is_named_with_its_claims() -> None:
    lines = summary(load_space("efficiency", {"seeds": ["42", "43"]}, weights="random"))
    assert lines[0].startswith("Can decide 10 of 31 claims (2a, 2b")
    assert lines[0].endswith("and 1 of 3 readings (2d), if every trial succeeds.")
    without_phi = load_space("paper", {"models": ["gemma-2b", "minicpm-2b-128k"]})
    assert undecidable(without_phi)["1g"] == ("it lacks phi-2",)
    assert "Not 3, 3b, 3c, 6a, 6b, 6c, 7b, 7c: 2 seeds, of 3 needed." in lines
    assert summary(load_space("embedded")) == [
        "Can decide none of the paper's claims, which are about gemma-2b, phi-2 and minicpm-2b-128k."
    ]
