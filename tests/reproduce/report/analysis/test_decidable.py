"""The plan's forecast of the claims that a space can decide, against the verdicts on such a space's trials."""

from __future__ import annotations

from typing import Any

import pytest

from reproduce.plan.search_space import load_space
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
    recipe = {
        f"recipe_{key}": getattr(space.recipe, key) for key in ("learning_rate", "precision", "padding")
    }
    recipe["recipe_max_validation_examples"] = space.recipe.max_validation_examples
    rows = [
        trial_row(
            f.strategy, f.model, f.task, f.seed, device="cuda", exclusive=space.exclusive,
            weights="random" if weights else "pretrained", **recipe,
        )
        for f in space.factors()
    ]  # fmt: skip
    obstacles = undecidable(space)
    assert {v.claim.id: bool(v.reasons) for v in verdicts(evidence_estimators(frame(*rows)))} == {
        claim: bool(reasons) for claim, reasons in obstacles.items()
    }
    assert sum(not reasons for reasons in obstacles.values()) == n_decided


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
