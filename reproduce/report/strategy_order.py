"""The order in which models, tasks and strategies are shown.

Order, family and baseline come from the kinds that ``lfreeze.strategy`` knows. Strategies of a kind that
is not installed here are reported too: last, sorted by name, each kind as its own family.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

import polars as pl

from lfreeze.strategy import Kind, kinds

# A label ends with a letter, so that this splits the name of any strategy, known here or not.
_NAME = re.compile(r"(?P<kind>.*?\D)(?P<percent>\d+(\.\d+)?)")

# The strategy that the others are compared with.
BASELINE = next(label for label, kind in kinds().items() if kind.baseline)


@cache
def kind_and_percent(strategy: str) -> tuple[str, float | None]:
    """``"ADT-L50"`` -> ``("ADT-L", 50.0)``; a name without a ratio is the label of its kind."""
    match = _NAME.fullmatch(strategy)
    return (match["kind"], float(match["percent"])) if match else (strategy, None)


def kind_of(strategy: str) -> Kind | None:
    """The strategy's kind; None if it is not installed here."""
    return kinds().get(kind_and_percent(strategy)[0])


def family_of(strategy: str) -> str:
    """The family whose colour and marker the strategy has; for an unknown kind its label."""
    kind = kind_of(strategy)
    return kind_and_percent(strategy)[0] if kind is None else kind.family


def strategy_key(strategy: str) -> tuple[float, str, float, str]:
    """Sorts strategies by kind, then by ratio; unknown kinds last."""
    label, percent = kind_and_percent(strategy)
    kind = kinds().get(label)
    order = float("inf") if kind is None else float(kind.order)
    return order, label, percent if percent is not None else -1.0, strategy


def strategies_in_order(names: Iterable[str]) -> list[str]:
    """The distinct names, sorted by ``strategy_key``."""
    return sorted(set(names), key=strategy_key)


def in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows sorted by those of model, task, strategy and seed that the frame has."""
    keys: list[pl.Expr] = [pl.col(name) for name in ("model", "task") if name in frame.columns]
    if "strategy" in frame.columns:
        places = {name: place for place, name in enumerate(strategies_in_order(frame["strategy"]))}
        keys.append(pl.col("strategy").replace_strict(places, return_dtype=pl.Int32))
    if "seed" in frame.columns:
        keys.append(pl.col("seed"))
    return frame.sort(keys, maintain_order=True) if frame.height else frame


def experiments(frame: pl.DataFrame) -> list[tuple[str, str]]:
    """The distinct (model, task) pairs of a frame, sorted."""
    return sorted(set(frame.select("model", "task").iter_rows()))


def is_tiny(model: str) -> bool:
    """Whether a model is one of the package's own miniatures."""
    return model.startswith("tiny-")
