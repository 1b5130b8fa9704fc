"""What a space reads, found and identified before anything starts: checkpoints, texts, trial specs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lfreeze.models import Checkpoint, find_checkpoint
from lfreeze.tasks import TaskData, load_task
from reproduce.search_space import SearchSpace
from reproduce.spec import Inputs, TrialSpec


@dataclass(frozen=True)
class SpaceInputs:
    """The models and tasks of a space, by name."""

    checkpoints: Mapping[str, Checkpoint]
    data: Mapping[str, TaskData]

    def of(self, model: str, task: str) -> Inputs:
        checkpoint, data = self.checkpoints[model], self.data[task]
        return Inputs(
            model_id=checkpoint.model_id,
            weights_hash=checkpoint.weights_hash,
            tokenizer_hash=checkpoint.tokenizer_hash,
            dataset_id=data.task.dataset_id,
            dataset_fingerprint=data.fingerprint,
        )


def find_inputs(
    space: SearchSpace, data_dir: Path | None = None, model_paths: Mapping[str, Path] | None = None
) -> SpaceInputs:
    """Find every model and read every task of a space.

    Raises:
        ModelError, TaskError: one of them is missing or malformed.
    """
    recipe = space.recipe
    checkpoints = {name: find_checkpoint(name, model_paths or {}) for name in space.models}
    data = {
        name: load_task(name, recipe.max_train_examples, recipe.data_seed, data_dir) for name in space.tasks
    }
    return SpaceInputs(checkpoints, data)


def trial_specs(space: SearchSpace, inputs: SpaceInputs) -> list[TrialSpec]:
    """Every trial of a space, in order."""
    return [
        TrialSpec(cell, space.recipe, inputs.of(cell.model, cell.task), space.name) for cell in space.cells()
    ]
