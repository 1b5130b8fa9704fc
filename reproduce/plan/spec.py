"""One trial as data: ``TrialSpec``, validated at the edge, and its content hash, the run id."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

from lfreeze.recipe import Recipe, RecipeError
from lfreeze.strategy import Strategy

# Raised when a change of the code changes the numbers of an unchanged specification.
NUMERICS = 1


@dataclass(frozen=True)
class Inputs:
    """What identifies the model and the data that a trial reads.

    Attributes:
        weights: ``"pretrained"`` or ``"random"``.
        model_revision, dataset_revision: the hub's commits, where the files are the hub's.
    """

    model_id: str
    weights_hash: str
    tokenizer_hash: str
    dataset_id: str
    dataset_fingerprint: str
    weights: str = "pretrained"
    model_revision: str | None = None
    dataset_revision: str | None = None

    def identity(self) -> dict[str, str]:
        """What the numbers depend on: contents, wherever they came from."""
        names = ("model_id", "weights_hash", "tokenizer_hash", "dataset_id", "dataset_fingerprint")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, order=False)
class Factors:
    """One point of the grid: the five factors (the ratio is part of the strategy's name)."""

    model: str
    task: str
    strategy: str
    seed: int

    def __str__(self) -> str:
        return f"{self.model}/{self.task}/{self.strategy}/seed{self.seed}"


@dataclass(frozen=True)
class TrialSpec:
    """Everything that can change a trial's numbers, and the space it was asked for in.

    Raises:
        RecipeError: an adaptive strategy whose probe would not end before training does.
    """

    factors: Factors
    recipe: Recipe
    inputs: Inputs
    space: str

    def __post_init__(self) -> None:
        check_probe(self.factors.strategy, self.recipe)

    @property
    def run_id(self) -> str:
        """A hash of the factors, the recipe and the inputs; the space's name is not among them."""
        content = {
            "numerics": NUMERICS,
            "cell": dataclasses.asdict(self.factors),
            "recipe": dataclasses.asdict(self.recipe),
            "inputs": self.inputs.identity(),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def check_probe(strategy: str, recipe: Recipe) -> None:
    """Refuse an adaptive strategy that would never come to select its layers."""
    if Strategy.parse(strategy).implementation.adaptive and recipe.probe_steps >= recipe.steps:
        raise RecipeError(
            f"strategy {strategy} needs steps above probe_steps = {recipe.probe_steps}, not {recipe.steps}"
        )
