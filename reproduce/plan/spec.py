"""One trial as data: ``TrialSpec``, validated when it is made, and its content hash, the run id."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lfreeze.recipe import Recipe, RecipeError
from lfreeze.strategy import Strategy

# Increased when a change of the code changes the numbers of an unchanged specification.
NUMERICS = 1
# Equal to no recipe value.
_NO_DEFAULT = object()


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
    """The factors of one trial; the frozen ratio is part of the strategy's name."""

    model: str
    task: str
    strategy: str
    seed: int

    def __str__(self) -> str:
        return f"{self.model}/{self.task}/{self.strategy}/seed{self.seed}"


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
            "cell": dataclasses.asdict(self.factors),
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
    """Refuse an adaptive strategy whose training would end before it selects its layers.

    Raises:
        RecipeError: ``steps`` is not above ``probe_steps``.
    """
    if Strategy.parse(strategy).implementation.adaptive and recipe.probe_steps >= recipe.steps:
        raise RecipeError(
            f"strategy {strategy} needs steps above probe_steps = {recipe.probe_steps}, not {recipe.steps}"
        )
