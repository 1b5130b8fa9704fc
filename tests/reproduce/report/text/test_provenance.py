"""The report's list of what the paper leaves open agrees with the recipe, the documentation and the models."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from lfreeze.models.catalog import find_checkpoint, get_model
from lfreeze.models.loading import BaseModel
from lfreeze.recipe import Recipe
from reproduce.plan.search_space import load_space
from reproduce.report.text.provenance import open_questions
from reproduce.store.parquet import read_trials
from tests.reproduce.report.synthetic import trial_row, write_rows

DECISIONS = (Path(__file__).parents[4] / "docs" / "decisions.md").read_text("utf-8")
# The paper's own values have no default (lfreeze.recipe).
NOT_GIVEN = [f.name for f in dataclasses.fields(Recipe) if f.default is not dataclasses.MISSING]


@pytest.fixture
def listed(tmp_path: Path) -> dict[str, tuple[str, ...]]:
    frame = read_trials([write_rows(tmp_path, [trial_row("ALL")])]).frame
    return {name: values for name, _, values in open_questions(frame)}


def test_every_recipe_field_that_the_paper_does_not_give_is_listed(
    listed: dict[str, tuple[str, ...]],
) -> None:
    fields = {f.name for f in dataclasses.fields(Recipe)}
    assert [name for name in listed if name in fields] == [name for name in listed if name in NOT_GIVEN]
    assert set(NOT_GIVEN) <= set(listed)
    assert [name for name in NOT_GIVEN if not re.search(rf"`{name}\b", DECISIONS)] == []


def test_every_decision_without_a_setting_is_a_row_of_the_page(listed: dict[str, tuple[str, ...]]) -> None:
    titles = set(re.findall(r"^\| ([^|]+) \|", DECISIONS, re.M))
    decided = [name for name in listed if name not in NOT_GIVEN]
    assert len(decided) == 7
    assert set(decided) <= titles


@pytest.mark.parametrize(
    ("model", "deviation"), [("tiny-gemma", 0.02), ("tiny-phi", 0.02), ("tiny-minicpm", 0.1)]
)
def test_heads_are_what_the_list_says(model: str, deviation: float) -> None:
    base = BaseModel(
        find_checkpoint(get_model(model)), 64, load_space("embedded").recipe, torch.device("cpu")
    )
    classifier = base.reset(42)
    head = classifier.score
    assert isinstance(head, torch.nn.Linear)
    assert head.bias is None
    # 4,096 values: the standard error of their deviation is 1.1 %.
    assert head.weight.std().item() == pytest.approx(deviation, rel=0.05)
    assert all(module.training for module in classifier.modules())
    # The logits are those of the last token that is not padding, whatever stands behind it.
    ids, mask = torch.tensor([[5, 6, 7, 0, 0]]), torch.tensor([[1, 1, 1, 0, 0]])
    ids[0, 3:] = classifier.config.pad_token_id
    classifier.eval()
    padded = classifier(input_ids=ids, attention_mask=mask).logits
    alone = classifier(input_ids=ids[:, :3], attention_mask=mask[:, :3]).logits
    assert torch.allclose(padded, alone, atol=1e-5)
