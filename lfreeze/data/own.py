"""The examples of a task of one's own: its labels as found in the files, and the draw of a validation split."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lfreeze.data.rows import checked_examples, label_names
from lfreeze.data.tables import Table, read_table
from lfreeze.data.tasks import Example, Task, TaskError


def read_own(task: Task, splits: Sequence[Sequence[Path]]) -> tuple[Task, list[list[Example]]]:
    """The task with its labels, and the examples of each split, the training split first.

    Labels that are not declared have the order of the file's metadata, if that names them. Otherwise they are those
    of the training split: whole numbers in their order, words sorted.

    Args:
        splits: the files of each split.

    Raises:
        TaskError: a file is malformed, lacks a column or has a row that cannot be used; all training examples have
            one label; or there are more labels than training examples.
    """
    assert task.own is not None
    column, reader = task.own.label, f"task {task.name}"
    tables = [[read_table(path, reader, (*task.fields, column)) for path in paths] for paths in splits]
    labels = task.labels or _labels(tables[0], column)
    places = {label: index for index, label in enumerate(labels)}
    accepted = ", ".join(labels) or "text and whole numbers"
    found = []
    for split in tables:
        examples = list[Example]()
        for table in split:
            names = label_names(table, column)

            def index_of(value: Any, names: list[Any] | None = names) -> int | None:
                return places.get(_text(value, names) or "")

            examples += checked_examples(table, task.fields, column, index_of, accepted, start=len(examples))
        found.append(examples)
    where = ", ".join(str(path) for path in splits[0])
    used = {example.label for example in found[0]}
    if len(used) == 1:
        raise TaskError(
            f"{where}: every example has the {column} {labels[used.pop()]!r}; task {task.name} needs two labels at least"
        )
    if len(labels) >= len(found[0]):
        raise TaskError(
            f"{where}: {len(labels)} values of {column} in {len(found[0])} examples; task {task.name} needs more "
            "examples than labels"
        )
    return replace(task, labels=labels), found


def _labels(tables: Sequence[Table], column: str) -> tuple[str, ...]:
    """The labels of a split in order; values that cannot be labels are left out, and refused where they stand."""
    names = label_names(tables[0], column)
    if names is not None:
        return tuple(map(str, names))
    texts = {text for table in tables for value in table.values[column] if (text := _text(value)) is not None}
    numbers = all(text.removeprefix("-").isdecimal() for text in texts)
    return tuple(sorted(texts, key=lambda text: (int(text) if numbers else 0, text)))


def _text(value: Any, names: Sequence[Any] | None = None) -> str | None:
    """A label's name; None for a value that cannot be one."""
    if names is not None and isinstance(value, int) and not isinstance(value, bool):
        return str(names[value]) if 0 <= value < len(names) else None
    return str(value) if isinstance(value, str | int) and str(value).strip() else None


def held_out(task: Task, examples: Sequence[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """Training and validation examples: of each label, the task's fraction is drawn for validation.

    Every label keeps a training example, and the validation split has one at least.

    Args:
        seed: draws the validation examples; equal seeds draw the same.
    """
    assert task.own is not None
    by_label: dict[int, list[int]] = {}
    for place, example in enumerate(examples):
        by_label.setdefault(example.label, []).append(place)
    counts = {label: len(places) for label, places in sorted(by_label.items())}
    # Python ignores the sign of a seed.
    drawn, chosen = random.Random(seed % 2**64), set[int]()
    for label, count in _shares(counts, task.own.validation_fraction).items():
        chosen.update(drawn.sample(by_label[label], count))
    return (
        [example for place, example in enumerate(examples) if place not in chosen],
        [example for place, example in enumerate(examples) if place in chosen],
    )


def _shares(counts: dict[int, int], fraction: float) -> dict[int, int]:
    """How many of each label's examples are held out: rounded down, the rest where most was cut off."""
    shares = {label: min(int(fraction * count), count - 1) for label, count in counts.items()}
    missing = max(1, round(fraction * sum(counts.values()))) - sum(shares.values())
    cut = sorted(counts, key=lambda label: (shares[label] - fraction * counts[label], label))
    for label in [label for label in cut if shares[label] < counts[label] - 1][: max(0, missing)]:
        shares[label] += 1
    return shares
