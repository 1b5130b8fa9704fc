"""What a space reads: checkpoints and texts, found, identified and checked before any trial starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lfreeze.data.loading import load_task
from lfreeze.data.tasks import TaskData
from lfreeze.models.catalog import Checkpoint, ModelCard, find_checkpoint
from lfreeze.strategy import Strategy
from reproduce.plan.search_space import SearchSpace
from reproduce.plan.spec import Inputs, TrialSpec


@dataclass(frozen=True)
class SpaceInputs:
    """The models and tasks of a space, by name; each card names the commit of its checkpoint.

    Attributes:
        separators: by model, the text between the two texts of a pair.
    """

    cards: Mapping[str, ModelCard]
    checkpoints: Mapping[str, Checkpoint]
    data: Mapping[str, TaskData]
    separators: Mapping[str, str]

    def of(self, model: str, task: str) -> Inputs:
        """The identity of one model and one task, as it enters a run id."""
        checkpoint, data = self.checkpoints[model], self.data[task]
        return Inputs(
            model_id=checkpoint.model_id,
            weights_hash=checkpoint.weights_hash,
            tokenizer_hash=checkpoint.tokenizer_hash,
            dataset_id=data.task.dataset_id,
            dataset_fingerprint=data.fingerprint,
            weights="random" if checkpoint.folder is None else "pretrained",
            model_revision=checkpoint.revision,
            dataset_revision=data.revision,
            pair_separator=self.separators[model],
        )


def find_inputs(space: SearchSpace, data_dir: Path | None = None) -> SpaceInputs:
    """Find every model and read every task of a space; files that the cache lacks are downloaded from the hub.

    Raises:
        ModelError, TaskError: one of them is missing or malformed.
        HubError: the hub cannot provide one of them.
    """
    recipe = space.recipe
    data = {
        name: load_task(
            name, recipe.max_train_examples, recipe.data_seed, data_dir, recipe.max_validation_examples
        )
        for name in space.tasks
    }
    checkpoints = {name: find_checkpoint(card) for name, card in space.cards.items()}
    cards = {
        name: replace(card, revision=checkpoints[name].revision or card.revision)
        for name, card in space.cards.items()
    }
    separators = {
        # The tokenizer of the tiny models has a separator of its own.
        name: "" if cards[name].tiny else _separator(checkpoint, recipe.pair_separator)
        for name, checkpoint in checkpoints.items()
    }
    return SpaceInputs(cards, checkpoints, data, separators)


def _separator(checkpoint: Checkpoint, setting: str) -> str:
    from lfreeze.data.encoding import separator
    from lfreeze.models.loading import load_tokenizer

    return separator(load_tokenizer(checkpoint), setting)


def check_inputs(space: SearchSpace, inputs: SpaceInputs) -> None:
    """Check that every model can be built, encodes its texts and fits the strategies, without reading weights.

    The encoded texts stay in the cache for the trials.

    Raises:
        InputError: a trial would fail on the device.
    """
    from lfreeze.data.encoding_cache import encoded
    from lfreeze.data.positions import require_positions
    from lfreeze.models.preflight import inspect_model

    strategies = [Strategy.parse(name) for name in space.strategies]
    for checkpoint in inputs.checkpoints.values():
        n_labels = max(len(data.task.labels) for data in inputs.data.values())
        model = inspect_model(checkpoint, n_labels, strategies, space.recipe)
        for data in inputs.data.values():
            texts = encoded(data, checkpoint, space.recipe.max_length, space.recipe.pair_separator)
            require_positions(checkpoint.name, model, texts, space.recipe)


def trial_specs(space: SearchSpace, inputs: SpaceInputs) -> list[TrialSpec]:
    """Every trial of a space, in the order of running."""
    return [
        TrialSpec(factors, space.recipe, inputs.of(factors.model, factors.task), space.name)
        for factors in space.factors()
    ]
