"""A search space: a validated, ordered grid of trials and the one recipe that they share."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lfreeze.data.tasks import get_task
from lfreeze.model_shape import ModelShape
from lfreeze.models.catalog import MODELS, ModelCard, get_model, with_folder
from lfreeze.models.files import ModelError
from lfreeze.recipe import Recipe, coerce, field_types
from lfreeze.strategy import Strategy
from reproduce.plan.space_file import AXES, SpaceError, read_space, validated
from reproduce.plan.spec import Factors, check_probe


@dataclass(frozen=True)
class SearchSpace:
    """A validated grid; names are canonical, and the axes' order is the order of the trials.

    Attributes:
        cards: where each model comes from, by its name.
        exclusive: whether a trial has its device to itself, so that its times count.
        gpu: whether it needs a GPU unless the CPU is requested.
    """

    name: str
    description: str
    cards: Mapping[str, ModelCard]
    exclusive: bool
    gpu: bool
    tasks: tuple[str, ...]
    strategies: tuple[str, ...]
    seeds: tuple[int, ...]
    recipe: Recipe

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self.cards)

    def factors(self) -> list[Factors]:
        """Every point of the grid; a model and task stay together, so that a worker seldom changes its model.

        With a prefix cache, the seeds of a strategy do too: a worker keeps the states of one depth.
        """
        by_seed = itertools.product(self.models, self.tasks, self.seeds, self.strategies)
        by_strategy = itertools.product(self.models, self.tasks, self.strategies, self.seeds)
        if self.recipe.prefix_cache == "off":
            return [Factors(model, task, strategy, seed) for model, task, seed, strategy in by_seed]
        return [Factors(*point) for point in by_strategy]


def load_space(
    name: str,
    narrow: Mapping[str, Sequence[str]] | None = None,
    overrides: Mapping[str, str] | None = None,
    *,
    model_paths: Mapping[str, Path] | None = None,
    pad_tokens: Mapping[str, str] | None = None,
    weights: str | None = None,
) -> SearchSpace:
    """Read a space by name or path, replace the axes in ``narrow``, set the recipe values in ``overrides``.

    Args:
        model_paths: by a model's name, the folder of its local copy.
        pad_tokens: by a model's name, the pad token if its tokenizer has none.
        weights: ``"pretrained"`` or ``"random"``, instead of the space's value.

    Raises:
        SpaceError: no such space, or a file that is not valid.
        StrategyError, ModelError, TaskError, RecipeError: an axis or recipe value is not valid.
    """
    values = read_space(name)
    values |= {
        axis: _numbers(chosen) if axis == "seeds" else list(chosen) for axis, chosen in (narrow or {}).items()
    }
    for key, text in (overrides or {}).items():
        value = coerce(key, text) if key in field_types() else text
        values["recipe"] = {**values.get("recipe", {}), key: value}
    if missing := [key for key in (*AXES, "recipe") if key not in values]:
        raise SpaceError(f"search space {name!r} lacks the key {', '.join(missing)}")
    file = validated(name, values | ({"weights": weights} if weights else {}))
    space = SearchSpace(
        name=Path(name).stem,
        description=file.description,
        cards=_cards(file.models, model_paths or {}, pad_tokens or {}, file.weights),
        exclusive=file.exclusive,
        gpu=file.gpu,
        tasks=_unique(get_task(task).name for task in file.tasks),
        strategies=_unique(Strategy.parse(strategy).name for strategy in file.strategies),
        seeds=_unique(file.seeds),
        recipe=Recipe.from_mapping(file.recipe),
    )
    _check_fit(space)
    return space


def _numbers(texts: Sequence[str]) -> list[int]:
    try:
        return [int(text) for text in texts]
    except ValueError:
        raise SpaceError(f"seeds {','.join(texts)!r} are not whole numbers separated by commas") from None


def _unique(items: Any) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(items))


def _cards(
    texts: Sequence[str], model_paths: Mapping[str, Path], pad_tokens: Mapping[str, str], weights: str
) -> dict[str, ModelCard]:
    """The models by name, each with its folder, pad token or random weights if given."""
    cards: dict[str, ModelCard] = {}
    used: set[str | None] = set()
    for text in dict.fromkeys(text.strip() for text in texts):
        try:
            card = get_model(text)
        except ModelError:
            # With a folder of its own, any name is a model's.
            if _key(model_paths, text) is None:
                raise
            card = ModelCard(text, f"local/{text}")
        folder, pad = (_key(option, text, card.name, card.model_id) for option in (model_paths, pad_tokens))
        used |= {folder, pad}
        card = with_folder(card, model_paths[folder]) if folder else card
        card = replace(card, pad_token=pad_tokens[pad]) if pad else card
        card = replace(card, random=weights == "random")
        if cards.get(card.name, card) != card:
            raise SpaceError(
                f"two models are called {card.name!r}: name one of them with --model-path NAME=DIR"
            )
        cards[card.name] = card
    for option, values in (("--model-path", model_paths), ("--pad-token", pad_tokens)):
        for name in values:
            if name not in used and name.lower() not in MODELS:
                raise SpaceError(f"{option} {name!r} names no model of the space; it has {', '.join(cards)}")
    return cards


def _key(option: Mapping[str, Any], *names: str) -> str | None:
    """The key of an option that is one of a model's names, whatever its case."""
    keys = {key.lower(): key for key in option}
    return next((keys[name.lower()] for name in names if name.lower() in keys), None)


def _check_fit(space: SearchSpace) -> None:
    """Refuse a strategy that freezes no layer or every layer of a packaged model."""
    for strategy in space.strategies:
        check_probe(strategy, space.recipe)
        for card in space.cards.values():
            if card.packaged:
                Strategy.parse(strategy).frozen_count(ModelShape.from_config(card.config).n_layers)


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, for a JSON file."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(recipe).items()}
