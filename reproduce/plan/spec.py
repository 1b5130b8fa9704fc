"""One trial as data: ``TrialSpec``, validated when it is made, and its content hash, the run id."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from lfreeze.recipe import Recipe, RecipeError
from lfreeze.strategy import Strategy

# Increased when a change of the code changes the numbers of an unchanged specification.
NUMERICS = 1
# Equal to no recipe value.
_NO_DEFAULT = object()
# Recipe values on which it depends what a trial reads, and with it its inputs' identity.
_OF_DATA = ("max_train_examples", "max_validation_examples", "data_seed", "pair_separator")
# Recipe values by name, in the order of the grid's keys.
GridPoint = tuple[tuple[str, Any], ...]


def data_values(point: GridPoint) -> GridPoint:
    """Those values of a grid's point that select texts."""
    return tuple((name, value) for name, value in point if name in _OF_DATA)


def point_text(point: Iterable[tuple[str, Any]]) -> str:
    """``learning_rate=0.001,steps=50``; texts of different values differ."""
    return ",".join(f"{name}={value_text(value)}" for name, value in point)


def value_text(value: Any) -> str:
    """A recipe value as one word."""
    return "+".join(value) if isinstance(value, list | tuple) else str(value)


@dataclass(frozen=True)
class Inputs:
    """Identifies the model and the data that a trial reads.

    Attributes:
        weights: ``"pretrained"`` or ``"random"``.
        model_revision, dataset_revision: the hub's commits; None for files that are not from the hub.
        pair_separator: the text that is put between the two texts of a pair; empty where the tokenizer
            puts tokens there, or nothing is put there.
    """

    model_id: str
    weights_hash: str
    tokenizer_hash: str
    dataset_id: str
    dataset_fingerprint: str
    weights: str = "pretrained"
    model_revision: str | None = None
    dataset_revision: str | None = None
    pair_separator: str = ""

    def identity(self) -> dict[str, str]:
        """The values that the numbers depend on: contents, whatever their source."""
        names = ["model_id", "weights_hash", "tokenizer_hash", "dataset_id", "dataset_fingerprint"]
        # Results without a separator were made before there was one.
        names += ["pair_separator"] if self.pair_separator else []
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, order=False)
class Factors:
    """The factors of one trial; the frozen ratio is part of the strategy's name.

    Attributes:
        grid: the recipe values that the space's grid gives this trial, by name. The run id has them through the
            recipe alone: a point of a grid is the trial of another recipe.
    """

    model: str
    task: str
    strategy: str
    seed: int
    grid: GridPoint = ()

    def __str__(self) -> str:
        point = f"/{point_text(self.grid)}" if self.grid else ""
        return f"{self.model}/{self.task}/{self.strategy}/seed{self.seed}{point}"

    @property
    def cell(self) -> dict[str, Any]:
        """The factors without the grid's values."""
        return {"model": self.model, "task": self.task, "strategy": self.strategy, "seed": self.seed}

    @property
    def data_key(self) -> int | tuple[int, GridPoint]:
        """What distinguishes the data of a task's trials: the seed, and grid values that select texts."""
        own = data_values(self.grid)
        return (self.seed, own) if own else self.seed


@dataclass(frozen=True)
class TrialSpec:
    """Everything that can change a trial's numbers, and the name of the space that lists the trial.

    Raises:
        RecipeError: an adaptive strategy whose probe does not end before training does.
    """

    factors: Factors
    recipe: Recipe
    inputs: Inputs
    space: str

    def __post_init__(self) -> None:
        check_probe(self.factors.strategy, self.recipe)

    @property
    def run_id(self) -> str:
        """A hash of the factors, the recipe and the inputs, but not of the space's name.

        A recipe value that was introduced later is left out while it has the default that it had then:
        trials of earlier versions, which had no such value, keep their id.
        """
        return self._hash(lambda field: "hashed_at_default" not in field.metadata)

    @property
    def earlier_run_ids(self) -> tuple[str, ...]:
        """Other ids that earlier schema versions gave to this same trial."""
        return tuple(run_id for run_id in (self._hash(lambda field: True),) if run_id != self.run_id)

    @property
    def all_run_ids(self) -> tuple[str, ...]:
        """Every id under which a folder may hold this trial, the present one first."""
        return (self.run_id, *self.earlier_run_ids)

    def _hash(self, left_out_at_default: Callable[[dataclasses.Field[Any]], bool]) -> str:
        recipe = dataclasses.asdict(self.recipe)
        for field in dataclasses.fields(self.recipe):
            introduced = field.metadata.get("introduced", _NO_DEFAULT)
            if recipe[field.name] == introduced and left_out_at_default(field):
                del recipe[field.name]
        content = {
            "numerics": NUMERICS,
            "cell": self.factors.cell,
            "recipe": recipe,
            "inputs": self.inputs.identity(),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def introduced_values() -> dict[str, Any]:
    """The recipe values that the first schema version lacked, each with its default when it was introduced.

    Results without such a value were made with that default. The metadata of the fields of ``Recipe`` says
    which they are (``introduced``), since which schema version (``since``), and, for the one that run ids
    contain even at its default, ``hashed_at_default``.
    """
    return {
        field.name: field.metadata["introduced"]
        for field in dataclasses.fields(Recipe)
        if "introduced" in field.metadata
    }


def check_probe(strategy: str, recipe: Recipe) -> None:
    """Refuse an adaptive strategy whose training would end before it selects its layers, or draws other ones.

    Raises:
        RecipeError: ``steps`` is not above ``probe_steps``, or ``redraw_steps`` where layers are drawn.
    """
    kind = Strategy.parse(strategy).implementation
    name = "redraw_steps" if kind.redraws else "probe_steps"
    if kind.adaptive and getattr(recipe, name) >= recipe.steps:
        raise RecipeError(
            f"strategy {strategy} needs steps above {name} = {getattr(recipe, name)}, not {recipe.steps}"
        )
