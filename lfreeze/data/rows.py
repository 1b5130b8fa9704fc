"""The rows of a task's files as checked examples: Parquet, tab-separated values, JSON lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unicodedata import category

from lfreeze.data.tasks import Example, Task, TaskError
from lfreeze.errors import first_line
from lfreeze.json_text import JsonError, parse_json

_ID_COLUMNS = ("index", "idx")
# What a text consists of if it shows nothing: spaces, controls, and marks such as U+200B and U+FEFF.
_INVISIBLE = {"Zs", "Zl", "Zp", "Cc", "Cf"}


def read_parquet(task: Task, paths: Sequence[Path]) -> list[Example]:
    """The examples of a split in the hub's Parquet files.

    Raises:
        TaskError: a file is malformed, names other labels than the task or the same in another order,
            or has a row that cannot be used; or there is no row.
    """
    import pyarrow.parquet

    assert task.hosted is not None
    rows_read: list[Example] = []
    for path in paths:
        try:
            table = pyarrow.parquet.read_table(path)
            table.validate(full=True)
        except (OSError, pyarrow.ArrowException) as error:
            raise TaskError(f"{path} is not a Parquet file ({first_line(error)})") from None
        names = list(table.column_names)
        required = (*task.hosted.fields, "label")
        _require_label_order(task, path, table.schema.metadata or {})
        rows = ((number, row) for number, row in enumerate(table.to_pylist(), start=1))
        rows_read += _examples(task, path, rows, required, names)
    if not rows_read:
        raise TaskError(f"{paths[0]} contains no examples")
    return rows_read


def read_archived(task: Task, path: Path) -> list[Example]:
    """The examples of a split in a benchmark's original file.

    Raises:
        TaskError: the file is not UTF-8, is malformed, has no row, or a row that cannot be used.
    """
    assert task.archive is not None
    text = _read_text(path)
    required = (*task.fields, task.archive.label_field)
    rows = _tsv_rows(path, text, required) if path.suffix == ".tsv" else _json_rows(path, text)
    rows_read = _examples(task, path, rows, required, None)
    if not rows_read:
        raise TaskError(f"{path} contains no examples")
    return rows_read


def require_visible_texts(task: Task, split: str, examples: Sequence[Example]) -> None:
    """Refuse examples of which a text shows nothing: empty, or made of white space and marks alone.

    Raises:
        TaskError: there is one; the message names the first.
    """
    for example in examples:
        texts = zip(task.fields, (example.first, example.second), strict=True)
        empty = [field for field, text in texts if not _is_visible(text)]
        if empty:
            raise TaskError(
                f"task {task.name}: {' and '.join(empty)} of the {split} example {example.example_id!r} "
                f"{'are' if len(empty) > 1 else 'is'} empty; every example needs two texts"
            )


def _is_visible(text: str) -> bool:
    return any(category(character) not in _INVISIBLE for character in text)


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TaskError(f"{path} cannot be read ({error.strerror})") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TaskError(f"{path} is not UTF-8 text (byte {error.start})") from None
    # UTF-16 without a byte-order mark is valid UTF-8 with a NUL in every other place.
    if "\0" in text:
        raise TaskError(f"{path} is not UTF-8 text (byte {content.index(0)} is NUL)")
    return text


def _require_unique(path: Path, columns: Sequence[str], required: Sequence[str]) -> None:
    for name in (*required, *_ID_COLUMNS):
        if columns.count(name) > 1:
            raise TaskError(f"{path} has {columns.count(name)} columns {name}, of which it may have one")


def _require_label_order(task: Task, path: Path, metadata: Mapping[bytes, bytes]) -> None:
    """Refuse a file whose metadata gives the label indices another meaning than the task's."""
    assert task.hosted is not None
    try:
        label = parse_json(metadata[b"huggingface"].decode())["info"]["features"]["label"]
        names = label.get("names") or label["feature"]["names"]
    except JsonError as error:
        raise TaskError(f"{path}: its metadata is {error}") from None
    except (AttributeError, KeyError, TypeError, UnicodeDecodeError):
        return
    expected = task.hosted.label_names or task.labels
    if names not in ([*expected], [*task.labels]):
        listed = ", ".join(map(str, names)) if isinstance(names, list) else repr(names)
        raise TaskError(
            f"{path}: its labels are {listed}; task {task.name} needs {', '.join(expected)}, in this order"
        )


def _examples(
    task: Task,
    path: Path,
    rows: Iterable[tuple[int, Mapping[str, Any]]],
    required: tuple[str, str, str],
    columns: Sequence[str] | None,
) -> list[Example]:
    """Checked examples of numbered rows.

    Args:
        required: the columns of the two texts and of the label.
        columns: all columns of a file with labels as indices; None for a file with labels by name.
    """
    *fields, label_field = required
    checked = []
    for number, row in rows:
        place = f"{path}, line {number}"
        missing = [name for name in required if name not in row]
        if missing:
            raise TaskError(
                f"{place}: no column {', '.join(missing)}; it has {', '.join(columns or row)}, "
                f"task {task.name} needs {', '.join(required)}"
            )
        label = _label_index(task, row[label_field], indexed=columns is not None)
        if label is None:
            accepted = ", ".join(task.labels)
            raise TaskError(f"{place}: unknown label {_shown(row[label_field])}; accepted are {accepted}")
        first, second = (row[name] for name in fields)
        if not isinstance(first, str) or not isinstance(second, str):
            raise TaskError(f"{place}: {' and '.join(fields)} must be text")
        example_id = _example_id(place, row, number)
        for name, text in zip((*fields, "the example's index"), (first, second, example_id), strict=True):
            if fault := _unusable(text):
                raise TaskError(f"{place}: {name} contains {fault}; texts consist of Unicode characters")
        checked.append(Example(example_id, first, second, label))
    return checked


def _example_id(place: str, row: Mapping[str, Any], number: int) -> str:
    value = next((row[name] for name in _ID_COLUMNS if row.get(name) is not None), number)
    if not isinstance(value, str | int | float):
        raise TaskError(f"{place}: the example's index must be a number or text, not {type(value).__name__}")
    return str(value)


def _shown(value: object) -> str:
    if isinstance(value, list | dict):
        return f"of type {type(value).__name__}"
    shown = repr(str(value))
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def _unusable(text: str) -> str:
    """The first character that no tokenizer or file format has to accept; empty if there is none."""
    if text.isascii():
        return "the character NUL" if "\0" in text else ""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"U+{ord(text[error.start]):04X}, half of a surrogate pair"
    return "the character NUL" if "\0" in text else ""


def _label_index(task: Task, value: object, *, indexed: bool) -> int | None:
    """The index of a label given by name, or as an index; None for any other value."""
    if isinstance(value, list | dict):
        return None
    if indexed and isinstance(value, int) and not isinstance(value, bool):
        return value if 0 <= value < len(task.labels) else None
    return task.labels.index(str(value)) if str(value) in task.labels else None


def _tsv_rows(path: Path, text: str, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a tab-separated file in which a quote is just a character, with line numbers."""
    # Only line feeds end lines: texts may contain other characters that str.splitlines splits at.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    header = lines[0].split("\t")
    _require_unique(path, header, required)
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        cells = line.split("\t")
        if len(cells) != len(header):
            raise TaskError(f"{path}, line {number}: {len(cells)} cells where the header has {len(header)}")
        yield number, dict(zip(header, cells, strict=True))


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line, unique_keys=True)
        except JsonError as error:
            raise TaskError(f"{path}, line {number}: {error}") from None
        if not isinstance(row, dict):
            raise TaskError(f"{path}, line {number}: not a JSON object")
        yield number, row
