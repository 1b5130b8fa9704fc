"""A search-space file -> a validated, ordered grid of cells and one recipe."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lfreeze.data.tasks import get_task
from lfreeze.errors import InputError
from lfreeze.model_shape import ModelShape
from lfreeze.models.catalog import MODELS, ModelCard, get_model, with_folder
from lfreeze.models.files import ModelError
from lfreeze.recipe import Recipe, coerce, field_types
from lfreeze.strategy import Strategy
from reproduce.plan.spec import Factors, check_probe

_SEED_LIMIT = 2**63
_AXES = ("models", "tasks", "strategies", "seeds")
_KEYS = ("extends", "description", "weights", "exclusive", "gpu", *_AXES, "recipe")
WEIGHTS = ("pretrained", "random")
# In a wheel the files lie inside this package, in a checkout beside it.
_FOLDERS = (Path(__file__).parents[1] / "search_spaces", Path(__file__).parents[2] / "search_spaces")


class SpaceError(InputError):
    """A search space that cannot be used; the message names what is wrong and what is accepted."""


@dataclass(frozen=True)
class SearchSpace:
    """A validated grid; names are canonical, and the axes' order is the order of the trials.

    Attributes:
        cards: where each model comes from, by its name.
        exclusive: whether a trial must have its device for itself, so that its times count.
        gpu: whether it takes a GPU, unless someone asks for the CPU.
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
        """All cells; a model and task stay together, so that a worker seldom changes its model."""
        return [
            Factors(model, task, strategy, seed)
            for model in self.models
            for task in self.tasks
            for seed in self.seeds
            for strategy in self.strategies
        ]


def space_names() -> list[str]:
    """The spaces that come with the project."""
    return sorted({path.stem for folder in _FOLDERS for path in folder.glob("*.toml")})


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
        pad_tokens: by a model's name, what pads batches if its tokenizer does not say.
        weights: ``"pretrained"`` or ``"random"``, instead of what the space says.

    Raises:
        SpaceError: no such space, or a file that is not valid.
        StrategyError, ModelError, TaskError, RecipeError: an axis or recipe value is not valid.
    """
    values = _read(name)
    for axis, chosen in (narrow or {}).items():
        values[axis] = _numbers(chosen) if axis == "seeds" else list(chosen)
    for key, text in (overrides or {}).items():
        values["recipe"] = {
            **values.get("recipe", {}),
            key: coerce(key, text) if key in field_types() else text,
        }
    missing = [key for key in (*_AXES, "recipe") if key not in values]
    if missing:
        raise SpaceError(f"search space {name!r} lacks the key {', '.join(missing)}")
    for axis in _AXES:
        wanted = int if axis == "seeds" else str
        items = values[axis]
        if not isinstance(items, list) or not items or any(type(item) is not wanted for item in items):
            kind = "whole numbers" if wanted is int else "names"
            raise SpaceError(f"search space {name!r}: {axis} = {items!r} is not a list of {kind}")
    for seed in values["seeds"]:
        if not -_SEED_LIMIT <= seed < _SEED_LIMIT:
            raise SpaceError(f"seed {seed} is outside the range of 64-bit whole numbers")
    space = SearchSpace(
        name=Path(name).stem,
        description=values.get("description", ""),
        cards=_cards(values["models"], model_paths or {}, pad_tokens or {}, _weights(name, values, weights)),
        exclusive=values.get("exclusive", False),
        gpu=values.get("gpu", False),
        tasks=_unique(get_task(t).name for t in values["tasks"]),
        strategies=_unique(Strategy.parse(s).name for s in values["strategies"]),
        seeds=_unique(values["seeds"]),
        recipe=Recipe.from_mapping(values["recipe"]),
    )
    _check_fit(space)
    return space


def _read(name: str, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    path = _find(name).resolve()
    if path in seen:
        raise SpaceError(f"search space {name!r} cannot extend itself")
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpaceError(f"search space {name!r} is not valid TOML: {error}") from None
    unknown = [key for key in values if key not in _KEYS]
    if unknown:
        raise SpaceError(f"search space {name!r}: unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}")
    for key, wanted, kind in (
        ("recipe", dict, "a table"),
        ("description", str, "text"),
        ("exclusive", bool, "true or false"),
        ("gpu", bool, "true or false"),
    ):
        if not isinstance(values.get(key, wanted()), wanted):
            raise SpaceError(f"search space {name!r}: {key} = {values[key]!r} is not {kind}")
    if "extends" not in values:
        return values
    base = values.pop("extends")
    if not isinstance(base, str):
        raise SpaceError(f"search space {name!r} cannot extend {base!r}")
    beside = path.parent / base
    inherited = _read(str(beside) if beside.suffix == ".toml" else base, (*seen, path))
    recipe = {**inherited.get("recipe", {}), **values.get("recipe", {})}
    return {**inherited, **values, "recipe": recipe}


def _find(name: str) -> Path:
    if name.endswith(".toml") or "/" in name:
        if Path(name).is_file():
            return Path(name)
    else:
        for folder in _FOLDERS:
            if (folder / f"{name}.toml").is_file():
                return folder / f"{name}.toml"
    if name.endswith(".toml"):
        raise SpaceError(f"search space {name!r}: there is no such file")
    raise SpaceError(
        f"unknown search space {name!r}; known are {', '.join(space_names())}, or a path to a .toml file"
    )


def _numbers(texts: Sequence[str]) -> list[int]:
    try:
        return [int(text) for text in texts]
    except ValueError:
        raise SpaceError(f"seeds {','.join(texts)!r} are not whole numbers separated by commas") from None


def _unique(items: Any) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(items))


def _weights(name: str, values: Mapping[str, Any], chosen: str | None) -> str:
    weights = chosen or values.get("weights", WEIGHTS[0])
    if weights not in WEIGHTS:
        raise SpaceError(f"search space {name!r}: weights = {weights!r} is not one of {', '.join(WEIGHTS)}")
    return str(weights)


def _cards(
    texts: Sequence[str], model_paths: Mapping[str, Path], pad_tokens: Mapping[str, str], weights: str
) -> dict[str, ModelCard]:
    """The models by name, with what was said of each: a folder, a pad token, random weights."""
    cards: dict[str, ModelCard] = {}
    used: set[str | None] = set()
    for text in dict.fromkeys(text.strip() for text in texts):
        try:
            card = get_model(text)
        except ModelError:
            # A folder of its own makes any name a model's.
            if _key(model_paths, text) is None:
                raise
            card = ModelCard(text, f"local/{text}")
        folder, pad = (_key(said, text, card.name, card.model_id) for said in (model_paths, pad_tokens))
        used |= {folder, pad}
        card = with_folder(card, model_paths[folder]) if folder else card
        card = replace(card, pad_token=pad_tokens[pad]) if pad else card
        card = replace(card, random=weights == "random")
        if cards.get(card.name, card) != card:
            raise SpaceError(
                f"two models are called {card.name!r}: call one otherwise with --model-path NAME=DIR"
            )
        cards[card.name] = card
    for option, said in (("--model-path", model_paths), ("--pad-token", pad_tokens)):
        for name in said:
            if name not in used and name.lower() not in MODELS:
                raise SpaceError(f"{option} {name!r} names no model of the space; it has {', '.join(cards)}")
    return cards


def _key(said: Mapping[str, Any], *names: str) -> str | None:
    """The key under which something was said of a model that goes by any of these names."""
    keys = {key.lower(): key for key in said}
    return next((keys[name.lower()] for name in names if name.lower() in keys), None)


def _check_fit(space: SearchSpace) -> None:
    """Refuse a strategy that freezes no layer or every layer of a model whose layers are known here."""
    for strategy in space.strategies:
        check_probe(strategy, space.recipe)
        for card in space.cards.values():
            if card.packaged:
                Strategy.parse(strategy).frozen_count(ModelShape.from_config(card.config).n_layers)


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, for a JSON file."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(recipe).items()}
