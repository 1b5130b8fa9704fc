"""The rows of a task's files as checked examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unicodedata import category

from lfreeze.data.records import unusable
from lfreeze.data.tables import Table, read_table
from lfreeze.data.tasks import Example, Task, TaskError
from lfreeze.json_text import JsonError, parse_json

_ID_COLUMNS = ("index", "idx")
_NUMBERS = {1: "a text", 2: "two texts"}
# What a text consists of if it shows nothing: spaces, controls, and marks such as U+200B and U+FEFF.
_INVISIBLE = {"Zs", "Zl", "Zp", "Cc", "Cf"}


def read_parquet(task: Task, paths: Sequence[Path]) -> list[Example]:
    """The examples of a split in the hub's Parquet files.

    Raises:
        TaskError: a file is malformed, names other labels than the task or the same in another order,
            or has a row that cannot be used; or there is no row.
    """
    assert task.hosted is not None
    required, examples = (*task.hosted.fields, "label"), list[Example]()
    for path in paths:
        table = read_table(path, f"task {task.name}", required, _ID_COLUMNS)
        _require_label_order(task, table)
        examples += _examples(task, table, required, start=len(examples), indexed=True)
    return examples


def read_archived(task: Task, path: Path) -> list[Example]:
    """The examples of a split in a benchmark's original file.

    Raises:
        TaskError: the file is not UTF-8, is malformed, has no row, or a row that cannot be used.
    """
    assert task.archive is not None
    required = (*task.fields, task.archive.label_field)
    table = read_table(path, f"task {task.name}", required, _ID_COLUMNS)
    return _examples(task, table, required, indexed=False)


def checked_examples(
    table: Table,
    fields: Sequence[str],
    label_field: str,
    index_of: Callable[[Any], int | None],
    accepted: str,
    *,
    start: int = 0,
    id_columns: Sequence[str] = (),
) -> list[Example]:
    """The rows of a table as examples.

    Args:
        fields: the columns of the texts.
        index_of: the index of a label; None for a label that is not accepted.
        accepted: the labels that are, for messages.
        start: number of examples of the split in files before this one.
        id_columns: columns of which the first that is not null names the example; its row's number does otherwise.

    Raises:
        TaskError: a label is not accepted, a text is not text, or a text or name has a character that no tokenizer
            has to accept.
    """
    labels, texts = table.values[label_field], [table.values[name] for name in fields]
    names = [table.values[name] for name in id_columns if name in table.values]
    checked = []
    for row, (value, *both) in enumerate(zip(labels, *texts, strict=True)):
        label = index_of(value)
        if label is None:
            raise TaskError(f"{table.place(row)}: unknown label {_shown(value)}; accepted are {accepted}")
        for name, text in zip(fields, both, strict=True):
            if not isinstance(text, str):
                found = "null" if text is None else type(text).__name__
                raise TaskError(
                    f"{table.place(row)}: {' and '.join(fields)} must be text, but {name} is {found}"
                )
        example_id = next((n[row] for n in names if n[row] is not None), table.first + start + row)
        if not isinstance(example_id, str | int | float):
            kind = type(example_id).__name__
            raise TaskError(f"{table.place(row)}: the example's index must be a number or text, not {kind}")
        for name, text in zip((*fields, "the example's index"), (*both, str(example_id)), strict=True):
            if fault := unusable(text):
                raise TaskError(
                    f"{table.place(row)}: {name} contains {fault}; texts consist of Unicode characters"
                )
        checked.append(Example(str(example_id), both[0], both[1] if len(both) > 1 else None, label))
    return checked


def label_names(table: Table, field: str) -> list[Any] | None:
    """The names of a column's label indices in a file's metadata, in index order; None if it names none.

    Raises:
        TaskError: the metadata is damaged.
    """
    try:
        label = parse_json(table.metadata[b"huggingface"].decode())["info"]["features"][field]
        names = label.get("names") or label["feature"]["names"]
    except JsonError as error:
        raise TaskError(f"{table.path}: its metadata is {error}") from None
    except (AttributeError, KeyError, TypeError, UnicodeDecodeError):
        return None
    return names if isinstance(names, list) else [names]


def require_visible_texts(task: Task, split: str, examples: Sequence[Example]) -> None:
    """Refuse examples of which a text shows nothing: empty, or made of white space and marks alone.

    Raises:
        TaskError: there is one; the message names the first.
    """
    for example in examples:
        texts = zip(task.fields, example.texts, strict=True)
        empty = [field for field, text in texts if not is_visible(text)]
        if empty:
            raise TaskError(
                f"task {task.name}: {' and '.join(empty)} of the {split} example {example.example_id!r} "
                f"{'are' if len(empty) > 1 else 'is'} empty; every example needs {_NUMBERS[len(task.fields)]}"
            )


def is_visible(text: str) -> bool:
    return any(category(character) not in _INVISIBLE for character in text)


def _require_label_order(task: Task, table: Table) -> None:
    """Refuse a file whose metadata gives the label indices another meaning than the task's."""
    assert task.hosted is not None
    names = label_names(table, "label")
    if names is None:
        return
    expected = task.hosted.label_names or task.labels
    if names not in ([*expected], [*task.labels]):
        listed = ", ".join(map(str, names)) if isinstance(names, list) else repr(names)
        raise TaskError(
            f"{table.path}: its labels are {listed}; task {task.name} needs {', '.join(expected)}, in this order"
        )


def _examples(
    task: Task, table: Table, required: Sequence[str], *, indexed: bool, start: int = 0
) -> list[Example]:
    """The examples of a built-in task.

    Args:
        required: the columns of the texts, then that of the label.
        indexed: whether the file has labels as indices, instead of by name.
    """
    *fields, label = required

    def index_of(value: Any) -> int | None:
        if isinstance(value, list | dict):
            return None
        if indexed and isinstance(value, int) and not isinstance(value, bool):
            return value if 0 <= value < len(task.labels) else None
        return task.labels.index(str(value)) if str(value) in task.labels else None

    accepted = ", ".join(task.labels)
    return checked_examples(table, fields, label, index_of, accepted, start=start, id_columns=_ID_COLUMNS)


def _shown(value: object) -> str:
    if isinstance(value, list | dict):
        return f"of type {type(value).__name__}"
    if value is None:
        return "null"
    shown = repr(str(value))
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
