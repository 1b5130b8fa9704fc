"""A search space: a validated, ordered grid of trials, and the recipe that they share but for the values it varies."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lfreeze.data.loading import described
from lfreeze.data.tasks import Task, get_task
from lfreeze.errors import StrategyError, shown, whole_number
from lfreeze.model_shape import ModelShape
from lfreeze.models.catalog import MODELS, ModelCard, get_model, with_folder
from lfreeze.models.files import ModelError
from lfreeze.recipe import Recipe, coerce, field_types
from lfreeze.strategy import Strategy
from reproduce.plan.keys import SpaceError
from reproduce.plan.own_tasks import own_task
from reproduce.plan.space_file import AXES, MOST_TRIALS, OWN_TASKS, read_space, validated
from reproduce.plan.spec import Factors, GridPoint, check_probe, value_text

# The folder model=<name> holds its trials, and file systems allow 255 bytes.
_LONGEST_NAME = 240


@dataclass(frozen=True)
class SearchSpace:
    """A validated grid; names are canonical, and the axes' order is the order of the trials.

    Attributes:
        cards: where each model comes from, by its name.
        tasks: the tasks, by their names; one's own have labels and sizes where their files are on this machine.
        exclusive: whether a trial has its device to itself, so that its times count.
        gpu: whether it needs a GPU unless the CPU is requested.
        recipe: the trials' recipe; of values that the grid varies, the first of each.
        grid: recipe values that vary, by name.
    """

    name: str
    description: str
    cards: Mapping[str, ModelCard]
    exclusive: bool
    gpu: bool
    tasks: Mapping[str, Task]
    strategies: tuple[str, ...]
    seeds: tuple[int, ...]
    recipe: Recipe
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self.cards)

    @cached_property
    def recipes(self) -> dict[GridPoint, Recipe]:
        """The recipe of every point of the grid, in order; without a grid, one.

        Raises:
            RecipeError: a combination of values is not a recipe.
        """
        points = [
            tuple(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())
        ]
        return {point: replace(self.recipe, **dict(point)) for point in points}

    @property
    def cpu_threads(self) -> int:
        """The most CPU threads that a trial uses."""
        return max(recipe.cpu_threads for recipe in self.recipes.values())

    def factors(self) -> list[Factors]:
        """Every trial; a model and task stay together, so that a worker seldom changes its model.

        With a prefix cache, the seeds of a strategy do too: a worker keeps the states of one depth.
        """
        points = list(self.recipes)
        by_seed = itertools.product(self.models, self.tasks, points, self.seeds, self.strategies)
        by_strategy = itertools.product(self.models, self.tasks, self.strategies, points, self.seeds)
        if all(recipe.prefix_cache == "off" for recipe in self.recipes.values()):
            return [Factors(model, task, name, seed, point) for model, task, point, seed, name in by_seed]
        return [Factors(model, task, name, seed, point) for model, task, name, point, seed in by_strategy]


def load_space(
    name: str,
    narrow: Mapping[str, Sequence[str]] | None = None,
    overrides: Mapping[str, str] | None = None,
    *,
    grid: Mapping[str, Sequence[str]] | None = None,
    model_paths: Mapping[str, Path] | None = None,
    pad_tokens: Mapping[str, str] | None = None,
    weights: str | None = None,
) -> SearchSpace:
    """Read a space by name or path, replace the axes in ``narrow``, set the recipe values in ``overrides``.

    A value in ``overrides`` takes the place of the list that the space's grid has for it.

    Args:
        grid: by name, the values that a recipe value takes, instead of the space's.
        model_paths: by a model's name, the folder of its local copy.
        pad_tokens: by a model's name, the pad token if its tokenizer has none.
        weights: ``"pretrained"`` or ``"random"``, instead of the space's value.

    Raises:
        SpaceError: no such space, or a file that is not valid.
        StrategyError, ModelError, TaskError, RecipeError: an axis or recipe value is not valid, or a file of one's
            own task is not.
    """
    values = read_space(name)
    own = {task: own_task(name, task, *table) for task, table in values.pop(OWN_TASKS).items()}
    values |= {
        axis: _numbers(chosen) if axis == "seeds" else list(chosen) for axis, chosen in (narrow or {}).items()
    }
    varied = {**values.get("grid", {}), **{key: list(texts) for key, texts in (grid or {}).items()}}
    for key, text in (overrides or {}).items():
        value = coerce(key, text) if key in field_types() else text
        values["recipe"] = {**values.get("recipe", {}), key: value}
        if key in (grid or {}):
            raise SpaceError(f"--set {key} and --grid {key} exclude each other")
        varied.pop(key, None)
    values["grid"] = varied
    if missing := [key for key in (*AXES, "recipe") if key not in values]:
        raise SpaceError(f"search space {name!r} lacks the key {', '.join(missing)}")
    file = validated(name, values | ({"weights": weights} if weights else {}))
    points = _grid(name, file.grid)
    first = {key: listed[0] for key, listed in points.items()}
    space = SearchSpace(
        name=Path(name).stem,
        description=file.description,
        cards=_cards(file.models, model_paths or {}, pad_tokens or {}, file.weights),
        exclusive=file.exclusive,
        gpu=file.gpu,
        tasks={task.name: described(task) for task in (get_task(text, own) for text in file.tasks)},
        strategies=_unique(Strategy.parse(strategy).name for strategy in file.strategies),
        seeds=_unique(file.seeds),
        recipe=Recipe.from_mapping({**file.recipe, **first}),
        grid=points,
    )
    _check_size(space)
    _check_fit(space)
    return space


def _grid(name: str, grid: Mapping[str, Sequence[Any]]) -> dict[str, tuple[Any, ...]]:
    """The grid's values in the types of the recipe.

    Raises:
        SpaceError: a key is no recipe value, or a value is listed twice.
        RecipeError: a value is not of its type.
    """
    points = {}
    for key, listed in grid.items():
        if key not in field_types():
            raise SpaceError(
                f"search space {name!r}: unknown recipe value {shown(key)} in [grid]; known are {', '.join(field_types())}"
            )
        values = [coerce(key, value) for value in listed]
        for place, value in enumerate(values):
            if value in values[:place]:
                raise SpaceError(
                    f"search space {name!r}: [grid] lists {key} = {value_text(value)} twice; each value is "
                    "accepted once"
                )
        points[key] = tuple(values)
    return points


def _numbers(texts: Sequence[str]) -> list[int]:
    try:
        return [whole_number(text) for text in texts]
    except ValueError:
        raise SpaceError(
            f"seeds {shown(','.join(texts))} are not whole numbers separated by commas"
        ) from None


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


def _check_size(space: SearchSpace) -> None:
    """Refuse more trials than can be planned, and names that can be no folder's."""
    axes = (space.models, space.tasks, space.strategies, space.seeds, *space.grid.values())
    n = math.prod(map(len, axes))
    if n > MOST_TRIALS:
        raise SpaceError(
            f"search space {space.name!r} has {n:,} trials, more than {MOST_TRIALS:,}: shorten one of its lists"
        )
    for name in space.models:
        if len(quote(name, safe="")) > _LONGEST_NAME:
            raise SpaceError(
                f"the model name {shown(name)} is longer than {_LONGEST_NAME} characters, as long as a folder's "
                "name may be: call it otherwise with --model-path NAME=DIR"
            )


def _check_fit(space: SearchSpace) -> None:
    """Refuse a strategy that freezes no layer or every layer of a packaged model, or trains what the model lacks."""
    for strategy in space.strategies:
        for recipe in space.recipes.values():
            check_probe(strategy, recipe)
        for card in space.cards.values():
            if card.packaged:
                _check_costs(card, Strategy.parse(strategy), space.recipe)


def _check_costs(card: ModelCard, strategy: Strategy, recipe: Recipe) -> None:
    shape = ModelShape.from_config(card.config)
    strategy.frozen_count(shape.n_layers)
    try:
        strategy.cost(shape, recipe, n_labels=2, length=1)
    except StrategyError as error:
        raise StrategyError(f"model {card.name}: {error}") from None


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, for a JSON file."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(recipe).items()}
