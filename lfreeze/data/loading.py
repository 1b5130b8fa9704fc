"""The examples of a task: from the benchmark's original files, from the hub, or generated.

The results are plain texts and label indices; nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lfreeze import hub
from lfreeze.data.tasks import Example, Hosted, Task, TaskData, TaskError, get_task
from lfreeze.errors import first_line
from lfreeze.tiny.tasks import examples

# The branch with the hub's Parquet copy of a dataset that is in another format.
_CONVERTED = "refs/convert/parquet"


def load_task(
    name: str,
    max_train_examples: int,
    data_seed: int,
    data_dir: Path | None = None,
    max_validation_examples: int = 0,
) -> TaskData:
    """Load the training examples chosen by ``data_seed``, and the validation split.

    Args:
        max_train_examples: how many training examples to choose at most.
        data_dir: the folder with the benchmarks' original files; without it, real tasks come from the hub.
        max_validation_examples: use the first so many of the validation split; 0 means all.

    Raises:
        TaskError: the files are missing, malformed, empty or not UTF-8, or have an unknown label or a
            validation label that no training example has.
        HubError: the task is not available from the hub.
    """
    task = get_task(name)
    at_most = max_validation_examples or None
    if task.tiny:
        train = _tiny(task, "train", _choose(task.n_train, max_train_examples, data_seed))
        validation = _tiny(task, "validation", range(task.n_validation)[:at_most])
        fingerprint = _fingerprint(task, train, validation)
        # Generated examples depend on the code alone.
        content = f"generated {task.name}"
        sizes = task.n_train, task.n_validation
        return TaskData(task, tuple(train), tuple(validation), fingerprint, content, *sizes)
    if data_dir is not None:
        revision, files = None, _archived(task, data_dir)
        available, full_validation = (_read(task, path) for _, path in files)
    else:
        revision, splits = _hosted(task)
        available, full_validation = (_read_parquet(task, list(split.values())) for split in splits)
        files = [item for split in splits for item in split.items()]
    unseen = sorted({e.label for e in full_validation} - {e.label for e in available})
    if unseen:
        raise TaskError(
            f"task {task.name}: the label {task.labels[unseen[0]]!r} is in the validation split, "
            "but no training example has it"
        )
    train = [available[i] for i in _choose(len(available), max_train_examples, data_seed)]
    validation = full_validation[:at_most]
    return TaskData(
        task,
        tuple(train),
        tuple(validation),
        _fingerprint(task, train, validation),
        _fingerprint(task, available, full_validation),
        len(available),
        len(full_validation),
        revision,
        tuple(files),
    )


def _choose(n: int, at_most: int, data_seed: int) -> Sequence[int]:
    return range(n) if n <= at_most else sorted(random.Random(data_seed).sample(range(n), at_most))


def _tiny(task: Task, split: str, indices: Sequence[int]) -> list[Example]:
    first, second = task.fields
    return [
        Example(row["idx"], row[first], row[second], task.labels.index(row["label"]))
        for row in examples(task.name, split, indices)
    ]


def _archived(task: Task, data_dir: Path) -> list[tuple[str, Path]]:
    assert task.archive is not None
    if not data_dir.is_dir():
        raise TaskError(f"the data folder {data_dir} does not exist or is not a folder")
    for parent in (data_dir, *sorted(data_dir.iterdir())):
        # Archives differ in case and in whether they contain a top-level folder.
        for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
            if folder.is_dir() and folder.name.lower() == task.archive.folder.lower():
                for file in task.archive.files:
                    if not (folder / file).is_file():
                        raise TaskError(f"task {task.name}: {folder} lacks the file {file}")
                return [(f"{task.archive.folder}/{file}", folder / file) for file in task.archive.files]
    raise TaskError(
        f"task {task.name}: neither {data_dir} nor a folder in it has a folder {task.archive.folder}"
    )


def _hosted(task: Task) -> tuple[str, tuple[dict[str, Path], dict[str, Path]]]:
    """The hub's commit, and the Parquet files of each split, by their names in the repository."""
    source = task.hosted
    if source is None:
        raise TaskError(f"task {task.name} is not on the hub: give the folder of its files with --data-dir")
    choose, complete = _chooser(source)
    first: hub.HubError | None = None
    for revision in (source.revision, _CONVERTED):
        try:
            snapshot = hub.snapshot(
                source.repo_id, revision, choose, complete, kind="dataset", reader=f"task {task.name}"
            )
            break
        except hub.HubError as error:
            # The error of the dataset itself is more helpful than that of its Parquet copy.
            first = first or error
    else:
        assert first is not None
        raise first
    present = [str(path.relative_to(snapshot.folder)) for path in snapshot.folder.rglob("*.parquet")]
    train, validation = (
        {name: snapshot.folder / name for name in _parquet_names(source.config, split, present)}
        for split in source.splits
    )
    return snapshot.revision, (train, validation)


def task_availability(task: Task) -> hub.Availability:
    """Whether ``load_task`` would succeed without ``data_dir``; generated tasks count as cached."""
    if task.tiny:
        return hub.Availability(cached=True)
    if task.hosted is None:
        return hub.Availability(
            cached=False, problem="not on the hub: give the folder of its files with --data-dir"
        )
    return hub.check_availability(
        task.hosted.repo_id, task.hosted.revision, *_chooser(task.hosted), kind="dataset"
    )


def _chooser(source: Hosted) -> tuple[Callable[[Sequence[str]], list[str]], Callable[[Path], bool]]:
    """A function that selects the files to download, and one that checks that a folder has all of them."""

    def choose(names: Sequence[str]) -> list[str]:
        return [name for split in source.splits for name in _parquet_names(source.config, split, names)]

    def complete(folder: Path) -> bool:
        present = [str(path.relative_to(folder)) for path in folder.rglob("*.parquet")]
        return all(_parquet_names(source.config, split, present) for split in source.splits)

    return choose, complete


def _parquet_names(config: str, split: str, names: Iterable[str]) -> list[str]:
    """The files of a split: ``cb/train-00000-of-00002.parquet``, ..., or ``cb/train/0000.parquet``, ...

    Empty unless there are as many files as their names say.
    """
    pattern = re.compile(rf"{re.escape(config)}/{split}(-\d+-of-(?P<count>\d+)|/\d+)\.parquet")
    matches = [match for name in sorted(names) if (match := pattern.fullmatch(name))]
    if matches and matches[0]["count"] and len(matches) != int(matches[0]["count"]):
        return []
    return [match[0] for match in matches]


def _read_parquet(task: Task, paths: Sequence[Path]) -> list[Example]:
    import pyarrow.parquet

    assert task.hosted is not None
    rows_read: list[Example] = []
    for path in paths:
        try:
            table = pyarrow.parquet.read_table(path)
            table.validate(full=True)
        except (OSError, pyarrow.ArrowException) as error:
            raise TaskError(f"{path} is not a Parquet file ({first_line(error)})") from None
        _require_label_order(task, path, table.schema.metadata or {})
        names = list(table.column_names)
        rows = ((number, row) for number, row in enumerate(table.to_pylist(), start=1))
        rows_read += _examples(task, path, rows, (*task.hosted.fields, "label"), names)
    if not rows_read:
        raise TaskError(f"{paths[0]} contains no examples")
    return rows_read


def _require_label_order(task: Task, path: Path, metadata: Mapping[bytes, bytes]) -> None:
    """Refuse a file whose metadata gives the label indices another meaning than the task's."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    except (KeyError, TypeError, ValueError):
        return
    # WNLI's archive calls its labels 0 and 1; the hub names their meaning.
    if len(names) != len(task.labels) or (set(names) == set(task.labels) and tuple(names) != task.labels):
        raise TaskError(
            f"{path}: its labels are {', '.join(names)}; task {task.name} needs {', '.join(task.labels)}"
        )


def _read(task: Task, path: Path) -> list[Example]:
    assert task.archive is not None
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TaskError(f"{path} is not UTF-8 text (byte {error.start})") from None
    rows = _tsv_rows(path, text) if path.suffix == ".tsv" else _json_rows(path, text)
    rows_read = _examples(task, path, rows, (*task.fields, task.archive.label_field), None)
    if not rows_read:
        raise TaskError(f"{path} contains no examples")
    return rows_read


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
        missing = [name for name in required if name not in row]
        if missing:
            raise TaskError(
                f"{path}, line {number}: no column {', '.join(missing)}; it has {', '.join(columns or row)}, "
                f"task {task.name} needs {', '.join(required)}"
            )
        label = _label_index(task, row[label_field], indexed=columns is not None)
        if label is None:
            accepted = ", ".join(task.labels)
            raise TaskError(
                f"{path}, line {number}: unknown label {str(row[label_field])!r}; accepted are {accepted}"
            )
        first, second = (row[name] for name in fields)
        if not isinstance(first, str) or not isinstance(second, str):
            raise TaskError(f"{path}, line {number}: {' and '.join(fields)} must be text")
        example_id = str(row.get("index", row.get("idx", number)))
        checked.append(Example(example_id, first, second, label))
    return checked


def _label_index(task: Task, value: object, *, indexed: bool) -> int | None:
    """The index of a label given by name, or as an index; None for any other value."""
    if indexed and isinstance(value, int):
        return value if 0 <= value < len(task.labels) else None
    return task.labels.index(str(value)) if str(value) in task.labels else None


def _tsv_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a tab-separated file in which a quote is just a character, with line numbers."""
    # Only line feeds end lines: texts may contain other characters that str.splitlines splits at.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    header = lines[0].split("\t")
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
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise TaskError(f"{path}, line {number}: not JSON ({error.msg})") from None
        if not isinstance(row, dict):
            raise TaskError(f"{path}, line {number}: not a JSON object")
        yield number, row


def _fingerprint(task: Task, train: Sequence[Example], validation: Sequence[Example]) -> str:
    digest = hashlib.sha256(json.dumps(task.labels).encode())
    for split in (train, validation):
        for e in split:
            digest.update(json.dumps([e.example_id, e.first, e.second, e.label]).encode())
        digest.update(b"\0")
    return digest.hexdigest()
