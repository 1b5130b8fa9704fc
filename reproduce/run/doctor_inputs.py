"""The inputs of a space: on this machine, on the hub, or what keeps them from being read, and their sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lfreeze import hub
from lfreeze.data.loading import load_task, task_availability
from lfreeze.errors import InputError
from lfreeze.models.catalog import ModelCard, find_checkpoint, model_availability
from lfreeze.models.shapes import model_shape
from reproduce.plan.inputs import check_inputs, find_inputs
from reproduce.plan.search_space import SearchSpace

# Of a published checkpoint, where its configuration names no other type.
_BYTES = {"float32": 4, "float64": 8}
_HALF = 2


@dataclass(frozen=True)
class Finding:
    """The result of one check; the text of a problem says how to fix it."""

    subject: str
    level: Literal["ok", "note", "problem"]
    text: str


@dataclass(frozen=True)
class Download:
    """A model's files that the cache lacks, in bytes.

    Attributes:
        n_bytes: of all its files; None if unknown.
        cached: of those that are in the cache already, in full or in part.
        predicted: whether the size is computed from the configuration, since the hub does not tell it.
    """

    n_bytes: int | None
    cached: int
    predicted: bool

    @property
    def left(self) -> int:
        return max((self.n_bytes or 0) - self.cached, 0)

    def __str__(self) -> str:
        if self.n_bytes is None:
            size = "of unknown size"
        else:
            size = f"{'about ' if self.predicted else ''}{self.n_bytes / 1e9:.2f} GB"
        return f"{size}, {self.cached / 1e9:.2f} GB of it in the cache" if self.cached else size


def downloads(space: SearchSpace) -> dict[str, Download]:
    """What is to be downloaded of each model that is not completely in the cache."""
    found = {}
    for name, card in space.cards.items():
        outlook = model_availability(card)
        if outlook.cached:
            continue
        size = outlook.n_bytes if outlook.n_bytes is not None else predicted_bytes(card)
        found[name] = Download(size, hub.cached_bytes(card.model_id), outlook.n_bytes is None)
    return found


def predicted_bytes(card: ModelCard) -> int | None:
    """The size of a model's published weights, from its configuration; None where that is not at hand.

    Weights are published with their language-modelling head, and in 16 bits unless the configuration says otherwise.
    """
    try:
        config = card.config
        parameters = model_shape(config).parameters(0)
    except InputError:
        return None
    vocabulary, width = config.get("vocab_size"), config.get("hidden_size")
    if not config.get("tie_word_embeddings", True) and isinstance(vocabulary, int) and isinstance(width, int):
        parameters += vocabulary * width
    return parameters * _BYTES.get(str(config.get("dtype", config.get("torch_dtype"))), _HALF)


def model_findings(space: SearchSpace) -> Iterator[Finding]:
    """Check each model: its files in the cache, or the hub's answer."""
    due = downloads(space)
    for name, card in space.cards.items():
        subject = f"model {name}"
        if card.random:
            yield Finding(subject, "ok", "random weights: nothing to download")
            continue
        outlook = model_availability(card)
        if outlook.problem:
            yield Finding(subject, "problem", f"{outlook.problem}; {card.model_id} is {due[name]}")
        elif not outlook.cached:
            text = f"{card.model_id} is on the hub ({due[name]}): `reproduce fetch` downloads it"
            yield Finding(subject, "ok", text)
        else:
            try:
                checkpoint = find_checkpoint(card)
            except InputError as error:
                yield Finding(subject, "problem", str(error))
            else:
                size = f"{sum(path.stat().st_size for path in checkpoint.files) / 1e9:.2f} GB"
                yield Finding(
                    subject,
                    "ok",
                    f"{card.model_id} is in the cache: {size}, weights {checkpoint.weights_hash:.12}",
                )
    if due:
        known = sum(download.n_bytes or 0 for download in due.values())
        left = sum(download.left for download in due.values())
        text = f"{len(due)} of {len(space.cards)} models, {known / 1e9:.2f} GB, of which {left / 1e9:.2f} GB are due"
        yield Finding("downloads", "note", text)


def task_findings(space: SearchSpace, data_dir: Path | None) -> Iterator[Finding]:
    """Check each task: its files under ``data_dir`` or in the cache, or the hub's answer."""
    for name, task in space.tasks.items():
        subject = f"task {name}"
        outlook = task_availability(task)
        if data_dir is None and outlook.problem:
            yield Finding(subject, "problem", outlook.problem)
        elif data_dir is None and not outlook.cached:
            yield Finding(subject, "ok", f"{task.dataset_id} is on the hub: `reproduce fetch` downloads it")
        else:
            try:
                data = load_task(
                    task,
                    space.recipe.max_train_examples,
                    space.recipe.drawing_seed(space.seeds[0]),
                    data_dir,
                    space.recipe.max_validation_examples,
                )
            except InputError as error:
                yield Finding(subject, "problem", str(error))
            else:
                text = (
                    f"{data.n_available:,} training and {data.n_validation_available:,} validation examples"
                )
                yield Finding(subject, "ok", text)


def fit_findings(space: SearchSpace, data_dir: Path | None) -> Iterator[Finding]:
    """Check that the models fit the texts and the strategies, once all of them are on this machine."""
    models = all(model_availability(card).cached for card in space.cards.values())
    tasks = data_dir is not None or all(task_availability(task).cached for task in space.tasks.values())
    if not (models and tasks):
        return
    try:
        inputs = find_inputs(space, data_dir)
    except InputError:
        return  # The checks of single models and tasks have reported it.
    try:
        check_inputs(space, inputs)
    except InputError as error:
        yield Finding("trials", "problem", str(error))
    else:
        yield Finding("trials", "ok", "the models encode their texts, and the strategies fit the models")
