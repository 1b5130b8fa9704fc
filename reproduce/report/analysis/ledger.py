"""The paper's claims and the conditions for evidence, as ``artifacts/reference/paper_claims.toml`` states them.

That file documents its format.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from lfreeze.strategy import paper_strategies
from reproduce.plan.search_space import SearchSpace, load_space
from reproduce.report.analysis.examples import Contrast
from reproduce.report.strategy_order import BASELINE
from reproduce.store.references import reference_path

_FILE = reference_path("paper_claims.toml")
assert _FILE is not None
_BOOK: dict[str, Any] = tomllib.loads(_FILE.read_text("utf-8"))

# By quantity, how far a number may be from the one that the paper prints.
MARGINS: Mapping[str, float] = _BOOK["margins"]
# Quantities of which more is better, so that more than the paper's range exceeds the claim.
SAVINGS = ("memory", "speed")
# Quantities relative to ALL, which use its trials even if a contrast does not name it.
AGAINST_ALL = ("memory", "speed", "start", "selection")
# Quantities that every one of the paper's strategies takes part in.
RANKED = ("rank", "lead")


@dataclass(frozen=True)
class Bound:
    """One end of a claim's range.

    Attributes:
        lower: whether it is the lower end.
        sign: the direction in which the quantity's margin moves it; 0 for a strict comparison, which has none.
    """

    holds: Callable[[float, float], bool]
    lower: bool
    sign: int
    words: str


BOUNDS = {
    "at_least": Bound(lambda value, bound: value >= bound, True, -1, "at least"),
    "above": Bound(lambda value, bound: value > bound, True, 0, "above"),
    "at_most": Bound(lambda value, bound: value <= bound, False, 1, "at most"),
    "below": Bound(lambda value, bound: value < bound, False, 0, "below"),
}


@dataclass(frozen=True)
class Claim:
    """One claim of the ledger: each contrast in ``parts`` must be within ``range``.

    Attributes:
        printed: bounds in the quantity's own unit, by their names in ``BOUNDS``, without the margin.
        models: the models that it is about; empty for all.
        each_model: whether every part is examined on each model.
        most: whether more than half of the parts decide, not all of them.
        highest: whether the highest experiment counts ("up to"), not the mean.
        reading: whether it is our reading of the text, not a claim that the paper prints.
    """

    id: str
    section: str
    statement: str
    quantity: str
    parts: tuple[Contrast, ...]
    printed: Mapping[str, float]
    models: tuple[str, ...] = ()
    each_model: bool = False
    most: bool = False
    highest: bool = False
    reading: bool = False

    @property
    def margin(self) -> float:
        return MARGINS.get(self.quantity, 0.0)

    @property
    def range(self) -> Mapping[str, float]:
        """The bounds, widened by the margin."""
        return {name: bound + BOUNDS[name].sign * self.margin for name, bound in self.printed.items()}

    @property
    def strategies(self) -> tuple[str, ...]:
        """The strategies whose trials decide it."""
        if self.quantity in RANKED:
            return paper_strategies()
        named = [name for part in self.parts for name in part]
        return tuple(dict.fromkeys([*named, BASELINE] if self.quantity in AGAINST_ALL else named))


@dataclass(frozen=True)
class Evidence:
    """What trials must be, to count for claims of the quantities; see the file for each field."""

    name: str
    quantities: tuple[str, ...]
    paper_tasks: bool
    pretrained: bool
    gpu: bool
    own_gpu: bool
    recipe: tuple[str, ...]
    settings: Mapping[str, Any]
    min_models: int
    min_experiments_per_model: int
    min_seeds: int

    @property
    def values(self) -> dict[str, Any]:
        """The recipe values that are required."""
        return {name: getattr(paper().recipe, name) for name in self.recipe} | dict(self.settings)


@cache
def claims() -> tuple[Claim, ...]:
    """The paper's claims and our readings of it, in the file's order."""
    names = ("id", "section", "statement", "quantity")
    return tuple(
        Claim(
            **{name: entry[name] for name in names},
            parts=tuple(entry["parts"]),
            printed={name: entry[name] for name in BOUNDS if name in entry},
            models=tuple(entry.get("models", ())),
            each_model=entry.get("each") == "model",
            most=entry.get("holds_for") == "most",
            highest=entry.get("highest", False),
            reading=entry.get("reading", False),
        )
        for entry in _BOOK["claim"]
    )


@cache
def evidence_for(quantity: str) -> Evidence:
    """The conditions for evidence on claims of a quantity."""
    name, entry = next(item for item in _BOOK["evidence"].items() if quantity in item[1]["quantities"])
    lists = {key: tuple(value) for key, value in entry.items() if isinstance(value, list)}
    return Evidence(name, **entry | lists)


def headline() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The strategies that the report's headline is about, and those that it compares them with."""
    return tuple(_BOOK["headline"]["strategies"]), tuple(_BOOK["headline"]["against"])


@cache
def paper() -> SearchSpace:
    """The paper's search space."""
    return load_space("paper")
