"""A recipe is checked once, at the edge."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lfreeze.recipe import CHOICES, RANGES, Recipe, RecipeError, coerce, field_types
from reproduce.plan.search_space import load_space
from reproduce.store.parquet import TRIAL_SCHEMA


@pytest.fixture
def values() -> dict[str, Any]:
    return dataclasses.asdict(load_space("paper").recipe)


def test_the_papers_values_have_no_default() -> None:
    required = {f.name for f in dataclasses.fields(Recipe) if f.default is dataclasses.MISSING}
    assert required == {
        "batch_size", "max_length", "steps", "learning_rate", "schedule", "lora_rank", "lora_alpha", "lora_dropout",
        "max_train_examples", "probe_steps",
    }  # fmt: skip
    with pytest.raises(RecipeError, match="the recipe lacks batch_size, max_length"):
        Recipe.from_mapping({})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("stepz", 3, "unknown recipe value 'stepz'; known are batch_size"),
        ("steps", 0, "steps = 0 is below 1"),
        ("steps", 10.5, "not of type int"),
        ("steps", True, "not of type int"),
        ("learning_rate", "fast", "'fast' is not a number"),
        ("learning_rate", -1.0, "below 0"),
        ("learning_rate", float("nan"), "not a finite number"),
        ("schedule", "linear", "'linear' is not one of cosine, constant"),
        ("lora_dropout", 1.0, "not below 1"),
        ("learning_rate", float("inf"), "not a finite number"),
        ("lora_targets", [], "not a list of names"),
        ("lora_targets", 5, "not a list of names"),
        ("lora_targets", ["q"] * 101, "not a list of names"),
        ("lora_targets", ["q" * 201], "not a list of names"),
        ("steps", 10**12, "steps = 1000000000000 is above 10,000,000"),
        ("steps", "9" * 5000, r"steps = '9+\.\.\. is not a whole number"),
        pytest.param("steps", 10**5000, "steps = a value .* too long to show is above 10,000,000", id="huge"),
        ("steps", "٢٥", "steps = '٢٥' is not a whole number"),
        ("steps", 10**7, "steps = 10000000 of batch_size = 32 read more than 100,000,000 examples"),
        ("batch_size", 2**63, "batch_size = 9223372036854775808 is above 65,536"),
        ("cpu_threads", 100_000, "cpu_threads = 100000 is above 1,024"),
        ("lora_rank", 2**31, "lora_rank = 2147483648 is above 65,536"),
        ("learning_rate", 10**400, "learning_rate = 1000.* is not a number"),
        ("schedule", "x" * 10_000, r"schedule = 'x{76}\.\.\. is not one of"),
        *(
            ("data_seed", bad, "is neither a whole number from 0 to 2\\*\\*63 - 1 nor 'trial'")
            for bad in ("٢٥", "random", "-1", -1, "1.0", 1.0, True, "9" * 5000, 2**63, None, ["trial"])
        ),
    ],
)
def test_values_that_cannot_be_used(values: dict[str, Any], name: str, value: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        Recipe.from_mapping(values | {name: value})
    assert name in str(caught.value)


def test_text_is_converted_to_the_type_of_the_value(values: dict[str, Any]) -> None:
    assert coerce("steps", "7") == 7
    assert coerce("learning_rate", "1e-4") == 1e-4
    assert coerce("data_seed", "7") == 7
    assert coerce("data_seed", "trial") == "trial"
    assert coerce("lora_targets", "q_proj,k_proj") == ("q_proj", "k_proj")
    assert Recipe.from_mapping(values | {"learning_rate": 1}).learning_rate == 1.0


def test_the_trials_own_seed_can_draw_its_examples(values: dict[str, Any]) -> None:
    assert [Recipe.from_mapping(values).drawing_seed(seed) for seed in (42, 43)] == [0, 0]
    drawn = Recipe.from_mapping(values | {"data_seed": "trial"})
    assert [drawn.drawing_seed(seed) for seed in (42, 43)] == [42, 43]


def test_every_value_is_a_column_of_the_trial_row() -> None:
    for field in dataclasses.fields(Recipe):
        assert f"recipe_{field.name}" in TRIAL_SCHEMA
    assert set(CHOICES) <= {field.name for field in dataclasses.fields(Recipe)}


def test_every_whole_number_fits_its_column() -> None:
    """A number beyond 64 bits was trained with, and then its row could not be written."""
    for name, kind in field_types().items():
        if kind is int:
            least, most = RANGES[name]
            assert 0 <= least < (most or 0) < 2**31
