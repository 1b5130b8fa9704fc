"""In which order models, tasks and strategies are shown."""

from __future__ import annotations

import re
from collections.abc import Iterable

import polars as pl

# The paper's families, in the order of its figures (§3, §4.2); other families follow by name.
FAMILIES = ("ALL", "LoRA", "INT", "BOT", "TOP", "ADT-L", "ADT-H")
BASELINE = "ALL"

_NAME = re.compile(r"(?P<family>.*?\D)(?P<percent>\d+(\.\d+)?)")


def family_and_percent(strategy: str) -> tuple[str, float | None]:
    """``"ADT-L50"`` -> ``("ADT-L", 50.0)``; a name without a ratio is its own family."""
    match = _NAME.fullmatch(strategy)
    return (match["family"], float(match["percent"])) if match else (strategy, None)


def strategy_key(strategy: str) -> tuple[int, str, float, str]:
    """Sorts strategies by family, then by ratio."""
    family, percent = family_and_percent(strategy)
    place = FAMILIES.index(family) if family in FAMILIES else len(FAMILIES)
    return place, family, percent if percent is not None else -1.0, strategy


def strategies_in_order(names: Iterable[str]) -> list[str]:
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
