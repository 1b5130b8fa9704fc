"""Recipe values that a space's grid varies, as a trial's row and a folder's manifest name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from lfreeze.errors import InputError
from reproduce.plan.spec import GridPoint, TrialSpec, introduced_values, point_text, value_text
from reproduce.store.columns import WORDS

Grid = dict[str, list[Any]]


def grid_of(specs: Iterable[TrialSpec]) -> Grid:
    """The values that trials' grids have, by name, in the order of the trials."""
    grid: Grid = {}
    for spec in specs:
        for name, value in spec.factors.grid:
            listed = grid.setdefault(name, [])
            listed += [] if plain(value) in listed else [plain(value)]
    return grid


def plain(value: Any) -> Any:
    """A recipe value as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def joined_grid(
    root: Path,
    old: tuple[Mapping[str, Any], Mapping[str, Sequence[Any]]],
    new: tuple[Mapping[str, Any], Mapping[str, Sequence[Any]]],
    error: type[InputError],
) -> Grid:
    """The grid of a folder once trials are added to it.

    A run may add values to the grid, make a grid of a value that the folder has, or run a part of the grid.

    Args:
        old, new: the recipe and the grid of the folder, and those of the trials.
        error: the type of error to raise.

    Raises:
        InputError: a value of the recipe is not the folder's, and no grid has both.
    """
    recipes = [{**introduced_values(), **recipe} for recipe, _ in (old, new)]
    joined: Grid = {}
    for name in sorted({*recipes[0], *recipes[1], *old[1], *new[1]}):
        before, now = (
            list(grid[name]) if name in grid else [plain(recipe.get(name))]
            for recipe, (_, grid) in zip(recipes, (old, new), strict=True)
        )
        added = [value for value in now if value not in before]
        if name in old[1] and added and name not in new[1]:
            raise error(
                f"the grid of {root} has {name} = {_texts(before)}, not {_texts(added)}: name another folder with "
                "--artifacts, or add the value to the space's [grid]"
            )
        if name not in old[1] and before[0] not in now:
            raise error(
                f"{root} belongs to another recipe: {name} = {before[0]!r} there, "
                f"{_texts(now) if name in new[1] else repr(now[0])} now; name another folder with --artifacts"
            )
        if name in old[1] or name in new[1]:
            joined[name] = before + added
    return joined


def _texts(values: Iterable[Any]) -> str:
    return ", ".join(map(value_text, values))


def grid_names(*tables: pl.DataFrame) -> tuple[str, ...]:
    """The names of the recipe values that any of the trials' grids varies."""
    texts = [text for rows in tables for text in rows["grid"].drop_nulls().unique().sort()]
    return tuple(dict.fromkeys(name for text in texts for name in text.split(",") if name))


def grid_points(trials: pl.DataFrame, names: Sequence[str]) -> list[GridPoint]:
    """Each trial's values of the named parts of the recipe."""
    columns = [
        [WORDS[name][0] if value is None and name in WORDS else value for value in trials[f"recipe_{name}"]]
        for name in names
    ]
    values = zip(*columns, strict=True) if columns else [()] * trials.height
    return [tuple(zip(names, each, strict=True)) for each in values]


def with_points(trials: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """The trials with a column ``point``: the text of each one's values, empty without names."""
    texts = [point_text(point) for point in grid_points(trials, names)]
    return trials.with_columns(pl.Series("point", texts, pl.String))
