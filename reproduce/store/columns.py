"""What the contract knows of a column, and the columns of a dataclass whose fields carry it."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import polars as pl

from lfreeze.errors import InputError
from lfreeze.recipe import Recipe, field_types

RECIPE_GROUP = "Recipe"
# Headings of the report's section on the trials' origin, in order.
ORIGINS = ("Software", "Hardware", "Measuring")
# Recipe values that are a word where others are numbers. Their columns keep the type: the word is a null, with
# this reason.
WORDS = {"data_seed": ("trial", "drawn by the trial's seed")}
_DTYPES: dict[Any, pl.DataType] = {
    int: pl.Int64(),
    float: pl.Float64(),
    str: pl.String(),
    bool: pl.Boolean(),
    datetime: pl.Datetime("us", "UTC"),
    tuple[int, ...]: pl.List(pl.Int64()),
    tuple[float, ...]: pl.List(pl.Float64()),
    tuple[str, ...]: pl.List(pl.String()),
}


class StoreError(InputError):
    """An artifact folder, file or row that breaks the contract; the message names it and says why."""


@dataclass(frozen=True)
class Column:
    """One column of a trial row.

    Attributes:
        group: its heading among a trial's details in the report; empty: not shown there.
        unit: of its values; None for texts, counts and truth values. A fraction has the unit ``1``.
        reason: why it may be null in a successful trial; None if it is never null there.
        origin: heading and name in the report's section on the trials' origin, if it is listed there.
        verify: the role in ``reproduce verify``: ``recipe``, ``inputs``, ``code``, ``versions`` and
            ``hardware`` explain a difference, a ``result`` of deterministic algorithms is equal to the last bit on
            equal hardware and versions, ``memory`` is equal within ``tolerance`` (relative).
        since: the first schema version that has it.
        older: its value in rows that lack it; None: null, with the reason that it was not recorded.
        dtype: its type in the files; derived from the field's type unless given.
        name: the field's name.
    """

    group: str
    unit: str | None = None
    reason: str | None = None
    origin: tuple[str, str] | None = None
    verify: str | None = None
    tolerance: float | None = None
    since: int = 1
    older: Any = None
    dtype: pl.DataType | None = None
    name: str = ""

    @property
    def older_reason(self) -> str:
        """Why the column is null in a row that lacks it."""
        return f"recorded since schema version {self.since}"


def columns_of(row_type: type[Any]) -> dict[str, Column]:
    """The columns of a dataclass by name, in order; a field of type ``Recipe`` is a column for each value."""
    columns: dict[str, Column] = {}
    hints = typing.get_type_hints(row_type, include_extras=True)
    for field in dataclasses.fields(row_type):
        value_type, column = typing.get_args(hints[field.name])
        if value_type is Recipe:
            columns |= _recipe_columns()
        else:
            dtype = column.dtype or _DTYPES[_without_none(value_type)]
            columns[field.name] = replace(column, name=field.name, dtype=dtype)
    return columns


def schema_of(columns: Mapping[str, Column]) -> dict[str, pl.DataType]:
    """The Polars schema of columns."""
    return {name: column.dtype for name, column in columns.items() if column.dtype is not None}


def _recipe_columns() -> dict[str, Column]:
    value_types = field_types()
    columns = {}
    for field in dataclasses.fields(Recipe):
        name = f"recipe_{field.name}"
        columns[name] = Column(
            RECIPE_GROUP,
            reason=WORDS[field.name][1] if field.name in WORDS else None,
            verify="recipe",
            since=field.metadata.get("since", 1),
            older=field.metadata.get("introduced"),
            dtype=pl.Int64() if field.name in WORDS else _DTYPES[value_types[field.name]],
            name=name,
        )
    return columns


def _without_none(value_type: Any) -> Any:
    """``X`` for ``X | None``."""
    if isinstance(value_type, types.UnionType):
        (value_type,) = (part for part in typing.get_args(value_type) if part is not type(None))
    return value_type
