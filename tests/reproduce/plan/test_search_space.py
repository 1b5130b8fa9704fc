"""The packaged search spaces, and the models that a space may name."""

from __future__ import annotations

from pathlib import Path

import pytest

from lfreeze.errors import InputError
from lfreeze.freezing import freeze
from lfreeze.strategy import Strategy, paper_strategies
from reproduce.plan.cost import Assumptions, plan_space
from reproduce.plan.keys import SpaceError
from reproduce.plan.search_space import load_space
from tests.support.architectures import LAYERS, build


def test_efficiency_measures_each_trial_alone() -> None:
    space = load_space("efficiency")
    assert space.exclusive
    assert len(space.factors()) == 20 * 3 * 5
    assert set(space.strategies) == {*paper_strategies(), "BOT-E25", "BOT-E50", "BOT-E75"}
    assert (space.recipe.padding, space.recipe.max_length) == ("max_length", 128)
    assert set(space.models) == set(load_space("paper").models)


def test_small_names_real_models_under_200_million_parameters() -> None:
    space = load_space("small")
    assert list(space.tasks) == ["rte", "cb"]
    trials = plan_space(space, Assumptions(8 * 2**30, 1e12))
    assert len(trials) == 17 * 2 * 2 * 3
    assert max(t.static_bytes for t in trials) < 4 * 200e6
    assert max(t.gpu_share for t in trials) <= 1


def test_bot_e_freezes_the_layers_of_bot_and_trains_the_embeddings() -> None:
    plans = {name: freeze(build("llama"), name) for name in ("BOT50", "BOT-E50")}
    assert plans["BOT50"].frozen_layers == plans["BOT-E50"].frozen_layers == tuple(range(LAYERS // 2))
    assert (plans["BOT50"].embeddings_frozen, plans["BOT-E50"].embeddings_frozen) == (True, False)
    assert (plans["BOT50"].backward_depth, plans["BOT-E50"].backward_depth) == (LAYERS // 2, LAYERS)
    assert Strategy.parse("bot-e33.5").name == "BOT-E33.5"


def test_a_model_is_a_name_an_identifier_or_a_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    models = ["Phi-2", "google/gemma-2b", "org/name", "org/name@v2", str(tmp_path / "mine"), "other"]
    space = load_space(
        "embedded",
        {"models": models, "strategies": ["ALL"]},
        model_paths={"other": tmp_path, "PHI-2": tmp_path},
        pad_tokens={"org/name": "eos"},
    )
    cards = space.cards
    assert space.models == ("phi-2", "gemma-2b", "org/name", "org/name@v2", "mine", "other")
    assert (cards["phi-2"].folder, cards["phi-2"].model_id) == (tmp_path, "microsoft/phi-2")
    assert cards["gemma-2b"].revision == "9cf48e52b224239de00d483ec8eb84fb8d0f3a3a"
    assert (cards["org/name@v2"].model_id, cards["org/name@v2"].revision) == ("org/name", "v2")
    assert (cards["mine"].folder, cards["mine"].model_id) == (tmp_path / "mine", "local/mine")
    assert (cards["other"].folder, cards["other"].model_id) == (tmp_path, "local/other")
    assert cards["org/name"].pad_token == "eos"
    assert not any(card.random for card in cards.values())
    assert load_space("embedded", weights="random").cards["tiny-gemma"].random


def test_models_that_a_space_cannot_name(tmp_path: Path) -> None:
    for sub in ("a/mine", "b/mine"):
        (tmp_path / sub).mkdir(parents=True)
    twice = [str(tmp_path / "a/mine"), str(tmp_path / "b/mine")]
    with pytest.raises(SpaceError, match="two models are called 'mine'"):
        load_space("embedded", {"models": twice})
    with pytest.raises(
        SpaceError, match="--pad-token 'gemmma' names no model of the space; it has tiny-gemma"
    ):
        load_space("embedded", pad_tokens={"gemmma": "eos"})
    with pytest.raises(InputError, match=r"unknown model 'gpt5'; known are .*, any Hugging Face identifier"):
        load_space("embedded", {"models": ["gpt5"]})
    file = tmp_path / "s.toml"
    for content, message in (
        ('extends = "embedded"\nweights = "none"', "weights = 'none' is not one of pretrained, random"),
        ('extends = "embedded"\nexclusive = 1', "exclusive = 1 is not true or false"),
    ):
        file.write_text(content)
        with pytest.raises(SpaceError, match=message):
            load_space(str(file))
