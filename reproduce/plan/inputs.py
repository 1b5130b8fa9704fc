"""What a space reads: checkpoints and texts, found, identified and checked before any trial starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lfreeze.data.loading import load_samples
from lfreeze.data.tasks import TaskData
from lfreeze.models.catalog import Checkpoint, ModelCard, find_checkpoint
from lfreeze.strategy import Strategy
from reproduce.plan.search_space import SearchSpace
from reproduce.plan.spec import Factors, Inputs, TrialSpec


@dataclass(frozen=True)
class SpaceInputs:
    """The models and tasks of a space, by name; each card names the commit of its checkpoint.

    Attributes:
        data: by task, the data of each trial's seed; one for all seeds unless these draw the examples.
        separators: by model, the text between the two texts of a pair.
    """

    cards: Mapping[str, ModelCard]
    checkpoints: Mapping[str, Checkpoint]
    data: Mapping[str, Mapping[int, TaskData]]
    separators: Mapping[str, str]

    def of(self, factors: Factors) -> Inputs:
        """The identity of a trial's model and data, as it enters its run id."""
        model = factors.model
        checkpoint, data = self.checkpoints[model], self.data[factors.task][factors.seed]
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
    recipe = space.recipe
    drawing = {seed: recipe.drawing_seed(seed) for seed in space.seeds}
    data = {}
    for name in space.tasks:
        samples = load_samples(
            name, recipe.max_train_examples, {*drawing.values()}, data_dir, recipe.max_validation_examples
        )
        data[name] = {seed: samples[drawn] for seed, drawn in drawing.items()}
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
    from lfreeze.training.packing import require_packable
    from lfreeze.training.prefix_store import require_prefix_folder

    strategies = [Strategy.parse(name) for name in space.strategies]
    for checkpoint in inputs.checkpoints.values():
        n_labels = max(len(data.task.labels) for data in inputs.every_data())
        model = inspect_model(checkpoint, n_labels, strategies, space.recipe)
        if space.recipe.padding == "packed":
            require_packable(checkpoint.name, model)
        for data in inputs.every_data():
            texts = encoded(data, checkpoint, space.recipe.max_length, space.recipe.pair_separator)
            require_positions(checkpoint.name, model, texts, space.recipe)
            if space.recipe.prefix_cache != "off":
                require_prefix_folder(model, texts)


def trial_specs(space: SearchSpace, inputs: SpaceInputs) -> list[TrialSpec]:
    """Every trial of a space, in the order of running."""
    return [TrialSpec(factors, space.recipe, inputs.of(factors), space.name) for factors in space.factors()]
