"""What a space reads: checkpoints and texts, found, identified and checked before any trial starts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lfreeze.data.loading import load_samples
from lfreeze.data.tasks import TaskData
from lfreeze.models.attempt import attempt_tokenizer
from lfreeze.models.catalog import Checkpoint, ModelCard, find_checkpoint
from lfreeze.recipe import Recipe
from lfreeze.strategy import Strategy
from reproduce.plan.search_space import SearchSpace
from reproduce.plan.spec import Factors, Inputs, TrialSpec, data_values

# Recipe values on which none of the checks depends, so that a grid over them is checked once.
_OF_NO_CHECK = ("steps", "learning_rate", "schedule", "weight_decay", "max_grad_norm", "warmup_steps")


@dataclass(frozen=True)
class SpaceInputs:
    """The models and tasks of a space, by name; each card names the commit of its checkpoint.

    Attributes:
        data: by task, the data of each trial by ``Factors.data_key``; one for all seeds unless these draw the
            examples.
        separators: by model and the recipe's ``pair_separator``, the text between the two texts of a pair.
    """

    cards: Mapping[str, ModelCard]
    checkpoints: Mapping[str, Checkpoint]
    data: Mapping[str, Mapping[Any, TaskData]]
    separators: Mapping[tuple[str, str], str]

    def of(self, factors: Factors, recipe: Recipe) -> Inputs:
        """The identity of a trial's model and data, as it enters its run id."""
        model = factors.model
        checkpoint, data = self.checkpoints[model], self.data[factors.task][factors.data_key]
        return Inputs(
            model_id=checkpoint.model_id,
            weights_hash=checkpoint.weights_hash,
            tokenizer_hash=checkpoint.tokenizer_hash,
            dataset_id=data.task.dataset_id,
            dataset_fingerprint=data.fingerprint,
            weights="random" if checkpoint.folder is None else "pretrained",
            model_revision=checkpoint.revision,
            dataset_revision=data.revision,
            pair_separator=(
                self.separators[model, recipe.pair_separator] if len(data.task.fields) == 2 else ""
            ),
        )

    def splits(self, task: str) -> TaskData:
        """The data of a task's first seed: what a seed draws differs, the complete splits do not."""
        return next(iter(self.data[task].values()))

    def every_data(self) -> list[TaskData]:
        """The data of all tasks and seeds, each once."""
        return list({d.fingerprint: d for of_task in self.data.values() for d in of_task.values()}.values())


def find_inputs(space: SearchSpace, data_dir: Path | None = None) -> SpaceInputs:
    """Find every model and read every task of a space; files that the cache lacks are downloaded from the hub.

    Raises:
        ModelError, TaskError: one of them is missing or malformed.
        HubError: the hub cannot provide one of them.
    """
    data: dict[str, dict[Any, TaskData]] = {name: {} for name in space.tasks}
    reading = {data_values(point): recipe for point, recipe in space.recipes.items()}
    for (name, task), (point, recipe) in itertools.product(space.tasks.items(), reading.items()):
        drawing = {seed: recipe.drawing_seed(seed) for seed in space.seeds}
        samples = load_samples(
            task, recipe.max_train_examples, {*drawing.values()}, data_dir, recipe.max_validation_examples
        )
        data[name] |= {(seed, point) if point else seed: samples[drawn] for seed, drawn in drawing.items()}
    checkpoints = {name: find_checkpoint(card) for name, card in space.cards.items()}
    cards = {
        name: replace(card, revision=checkpoints[name].revision or card.revision)
        for name, card in space.cards.items()
    }
    for name, card in space.cards.items():
        if not card.known:
            attempt_tokenizer(checkpoints[name], all_texts(data))
    separators = {
        # The tokenizer of the tiny models has a separator of its own.
        (name, setting): "" if cards[name].tiny else _separator(checkpoint, setting)
        for name, checkpoint in checkpoints.items()
        for setting in {recipe.pair_separator for recipe in reading.values()}
    }
    return SpaceInputs(cards, checkpoints, data, separators)


def all_texts(data: Mapping[str, Mapping[int, TaskData]]) -> list[tuple[str, ...]]:
    """The different texts or pairs of the training and validation examples, of tasks and their seeds."""
    splits = (
        split
        for of_task in data.values()
        for each in of_task.values()
        for split in (each.train, each.validation)
    )
    return list(dict.fromkeys(example.texts for split in splits for example in split))


def _separator(checkpoint: Checkpoint, setting: str) -> str:
    from lfreeze.data.encoding import separator
    from lfreeze.models.loading import load_tokenizer

    return separator(load_tokenizer(checkpoint), setting)


def check_inputs(space: SearchSpace, inputs: SpaceInputs) -> None:
    """Check that every model can be built, encodes its texts, fits the strategies and has weights that are numbers.

    The encoded texts stay in the cache for the trials.

    Raises:
        InputError: a trial would fail on the device.
    """
    from lfreeze.data.encoding_cache import encoded
    from lfreeze.data.positions import require_positions
    from lfreeze.models.checkpoint_check import require_finite
    from lfreeze.models.preflight import inspect_model
    from lfreeze.training.packing import require_packable
    from lfreeze.training.prefix_store import require_prefix_folder

    for name, checkpoint in inputs.checkpoints.items():
        if checkpoint.folder is not None and not inputs.cards[name].tiny:
            require_finite(checkpoint)
    strategies = [Strategy.parse(name) for name in space.strategies]
    same = {name: getattr(space.recipe, name) for name in _OF_NO_CHECK}
    recipes = {replace(recipe, **same) for recipe in space.recipes.values()}
    for checkpoint, recipe in itertools.product(inputs.checkpoints.values(), recipes):
        n_labels = max(len(data.task.labels) for data in inputs.every_data())
        model = inspect_model(checkpoint, n_labels, strategies, recipe)
        if recipe.padding == "packed":
            require_packable(checkpoint.name, model)
        for data in inputs.every_data():
            texts = encoded(data, checkpoint, recipe.max_length, recipe.pair_separator)
            require_positions(checkpoint.name, model, texts, recipe)
            if recipe.prefix_cache != "off":
                require_prefix_folder(model, texts)


def trial_specs(space: SearchSpace, inputs: SpaceInputs) -> list[TrialSpec]:
    """Every trial of a space, in the order of running."""
    return [
        TrialSpec(factors, recipe, inputs.of(factors, recipe), space.name)
        for factors in space.factors()
        for recipe in [space.recipes[factors.grid]]
    ]
