"""A search-space file -> a validated, ordered grid of cells and one recipe."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfreeze.errors import InputError
from lfreeze.models import get_model
from lfreeze.recipe import Recipe, coerce, field_types
from lfreeze.shapes import ModelShape
from lfreeze.strategy import Strategy
from lfreeze.tasks import get_task
from reproduce.spec import Cell, check_probe

_SEED_LIMIT = 2**63
_AXES = ("models", "tasks", "strategies", "seeds")
_KEYS = ("extends", "description", *_AXES, "recipe")
# In a wheel the files lie inside this package, in a checkout beside it.
_FOLDERS = (Path(__file__).parent / "search_spaces", Path(__file__).parents[1] / "search_spaces")


class SpaceError(InputError):
    """A search space that cannot be used; the message names what is wrong and what is accepted."""


@dataclass(frozen=True)
class SearchSpace:
    """A validated grid; names are canonical, and the axes' order is the order of the trials."""

    name: str
    description: str
    models: tuple[str, ...]
    tasks: tuple[str, ...]
    strategies: tuple[str, ...]
    seeds: tuple[int, ...]
    recipe: Recipe

    def cells(self) -> list[Cell]:
        """All cells; a model and task stay together, so that a worker seldom changes its model."""
        return [
            Cell(model, task, strategy, seed)
            for model in self.models
            for task in self.tasks
            for seed in self.seeds
            for strategy in self.strategies
        ]


def space_names() -> list[str]:
    """The spaces that come with the project."""
    return sorted({path.stem for folder in _FOLDERS for path in folder.glob("*.toml")})


def load_space(
    name: str, narrow: Mapping[str, Sequence[str]] | None = None, overrides: Mapping[str, str] | None = None
) -> SearchSpace:
    """Read a space by name or path, replace the axes in ``narrow``, set the recipe values in ``overrides``.

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
        models=_unique(get_model(m).name for m in values["models"]),
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
    for key, wanted in (("recipe", dict), ("description", str)):
        if not isinstance(values.get(key, wanted()), wanted):
            kind = "a table" if wanted is dict else "text"
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
    raise SpaceError(
        f"unknown search space {name!r}; known are {', '.join(space_names())}, or a path to a .toml file"
    )


def _numbers(texts: Sequence[str]) -> list[int]:
    try:
        return [int(text) for text in texts]
    except ValueError:
        raise SpaceError(f"seeds {','.join(texts)!r} are not whole numbers") from None


def _unique(items: Any) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(items))


def _check_fit(space: SearchSpace) -> None:
    """Refuse a strategy that freezes no layer or every layer of one of the models."""
    for strategy in space.strategies:
        check_probe(strategy, space.recipe)
        for model in space.models:
            Strategy.parse(strategy).frozen_count(ModelShape.from_config(get_model(model).config).n_layers)


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, for a JSON file."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(recipe).items()}
