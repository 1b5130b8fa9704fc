"""The tables ``[tasks.NAME]`` of a search-space file: tasks of the user's own, by the files or the hub's dataset."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from lfreeze.data.tasks import TASKS, Hosted, Own, Task
from reproduce.plan.keys import Accepts, SpaceError, validated_keys

# What is assumed of a dataset on the hub until it is downloaded: examples for training and for validation.
_ASSUMED_SIZES = (100_000, 1_000)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_Any = Annotated[str, Field(max_length=1000)]
_Text = Annotated[str, Field(min_length=1, max_length=1000)]
_Label = _Any | Annotated[int, Field(ge=-(2**63), lt=2**63)]
_Two = Field(min_length=1, max_length=2)


class TaskTable(BaseModel):
    """A task of one's own; an empty table is the built-in task of that name."""

    model_config = ConfigDict(extra="forbid", strict=True)

    train: Annotated[_Any, Accepts("the name of a file")] = Field(
        "", description="The training file, CSV, TSV, JSON Lines or Parquet, relative to this file."
    )
    validation: Annotated[_Any, Accepts("the name of a file")] = Field(
        "", description="The validation file, relative to this file."
    )
    dataset: Annotated[_Any, Accepts("a hub identifier, org/name")] = Field(
        "", description="A dataset in Parquet files on the hub, org/name, instead of files."
    )
    config: Annotated[_Any, Accepts("the name of a configuration")] = Field(
        "", description="The dataset's configuration, if it has several."
    )
    revision: Annotated[_Text, Accepts("a commit, tag or branch")] = Field(
        "main", description="The dataset's commit, tag or branch."
    )
    splits: Annotated[list[_Text], _Two, Accepts("a list of one or two names")] = Field(
        default_factory=list,
        description="The dataset's training and validation split; only the first with validation_fraction.",
    )
    validation_fraction: Annotated[float, Field(gt=0, lt=1), Accepts("a number between 0 and 1")] = Field(
        0.0,
        description="Instead of a validation split: the part of each label's examples that data_seed draws for it.",
    )
    text: Annotated[
        _Text | Annotated[list[_Text], _Two], Accepts("the name of a column, or a list of two")
    ] = Field(description="The texts' column, or two columns of pairs.")
    label: Annotated[_Text, Accepts("the name of a column")] = Field(description="The labels' column.")
    labels: Annotated[
        list[_Label],
        Field(min_length=2, max_length=1000),
        Accepts("a list of two labels or more, up to 1,000"),
    ] = Field(
        default_factory=list,
        description="The labels in order; by default as found, numbers ascending and words sorted.",
    )


def own_task(space: str, name: str, values: Mapping[str, Any], folder: Path) -> Task:
    """The task that a table describes.

    Args:
        space: the space's name, for messages.
        folder: what the names of files are relative to.

    Raises:
        SpaceError: the table has an unknown key, a wrong value or an incomplete source, or the name of a built-in task.
    """
    where = f"search space {space!r}: [tasks.{name:.100}]"
    if name.lower() in TASKS:
        raise SpaceError(f"{where} has the name of a built-in task: choose another one for your task")
    if not _NAME.fullmatch(name):
        raise SpaceError(
            f"{where}: a task's name consists of up to 100 letters, digits, hyphens and underscores"
        )
    table = validated_keys(TaskTable, where, values)
    if fault := _fault(table):
        raise SpaceError(f"{where} {fault}")
    fields = (table.text,) if isinstance(table.text, str) else tuple(table.text)
    if len({*fields, table.label}) <= len(fields):
        raise SpaceError(
            f"{where}: text and label must be different columns, not {', '.join((*fields, table.label))}"
        )
    labels = tuple(map(str, table.labels))
    if len({*labels}) < len(labels):
        raise SpaceError(f"{where}: labels has a label twice; each is accepted once")
    own = Own(
        table.label,
        tuple(folder / file for file in (table.train, table.validation) if file),
        table.validation_fraction,
    )
    if table.train:
        return Task(name, fields, labels, *_ASSUMED_SIZES, f"local/{name}", own=own)
    splits = tuple(table.splits or (["train"] if own.validation_fraction else ["train", "validation"]))
    hosted = Hosted(table.dataset, table.revision, table.config, splits, fields)
    dataset_id = f"{table.dataset}/{table.config}" if table.config else table.dataset
    return Task(name, fields, labels, *_ASSUMED_SIZES, dataset_id, hosted=hosted, own=own)


def _fault(table: TaskTable) -> str:
    """Why the keys of a table do not describe a source of texts; empty if they do."""
    fraction = bool(table.validation_fraction)
    if bool(table.train) == bool(table.dataset):
        return "needs the key train (a file) or dataset (on the hub), and not both"
    if table.dataset:
        if table.validation:
            return "has a validation file, which goes with a training file: name a split of the dataset in splits"
        if table.splits and fraction == (len(table.splits) == 2):
            return "needs two names in splits, or one name and validation_fraction"
        return ""
    if fraction == bool(table.validation):
        return "needs the key validation (a file) or validation_fraction, and not both"
    foreign = [key for key in ("config", "revision", "splits") if key in table.model_fields_set]
    return f"has {foreign[0]}, which goes with dataset, not with train" if foreign else ""
