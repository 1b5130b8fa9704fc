"""The NLI tasks: the paper's five (§4.1, Table 1) and their tiny counterparts.

Loading gives plain texts and label indices; nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lfreeze.errors import InputError
from lfreeze.tiny.tasks import TINY_TASKS, examples


class TaskError(InputError):
    """A task or its data that cannot be used; the message names what is wrong and what is accepted."""


@dataclass(frozen=True)
class Task:
    """One task: its label set, in index order, its text fields, and the benchmark's own files.

    Attributes:
        n_train, n_validation: official sizes.
        folder: the archive's folder, empty for a tiny task, which is generated.
    """

    name: str
    fields: tuple[str, str]
    labels: tuple[str, ...]
    n_train: int
    n_validation: int
    dataset_id: str
    folder: str = ""
    files: tuple[str, str] = ("", "")
    label_field: str = "label"

    @property
    def tiny(self) -> bool:
        return not self.folder


@dataclass(frozen=True)
class Example:
    """One premise and hypothesis (or question and sentence) with the index of its label."""

    example_id: str
    first: str
    second: str
    label: int


@dataclass(frozen=True)
class TaskData:
    """The examples that a trial uses; ``fingerprint`` is a hash of all of them, in order."""

    task: Task
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    fingerprint: str

    @property
    def majority_accuracy(self) -> float:
        """The accuracy of always answering the validation split's most frequent label."""
        counts = Counter(example.label for example in self.validation)
        return max(counts.values()) / len(self.validation)


def _glue(
    name: str,
    fields: tuple[str, str],
    labels: tuple[str, ...],
    sizes: tuple[int, int],
    *,
    dev: str = "dev.tsv",
    label_field: str = "label",
) -> Task:
    dataset = f"nyu-mll/glue/{name.lower()}"
    return Task(name.lower(), fields, labels, *sizes, dataset, name, ("train.tsv", dev), label_field)


_SENTENCES = ("sentence1", "sentence2")
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _glue("RTE", _SENTENCES, ("entailment", "not_entailment"), (2_490, 277)),
        _glue("QNLI", ("question", "sentence"), ("entailment", "not_entailment"), (104_743, 5_463)),
        _glue("WNLI", _SENTENCES, ("0", "1"), (635, 71)),
        _glue(
            "MNLI",
            _SENTENCES,
            ("entailment", "neutral", "contradiction"),
            (392_702, 9_815),
            dev="dev_matched.tsv",
            label_field="gold_label",
        ),
        Task(
            "cb",
            ("premise", "hypothesis"),
            ("entailment", "contradiction", "neutral"),
            250,
            56,
            "aps/super_glue/cb",
            "CB",
            ("train.jsonl", "val.jsonl"),
        ),
        *(
            Task(t.name, t.fields, t.labels, t.n_train, t.n_validation, f"lfreeze.tiny/{t.name}")
            for t in TINY_TASKS.values()
        ),
    )
}


def get_task(name: str) -> Task:
    """The task called ``name``.

    Raises:
        TaskError: there is none.
    """
    try:
        return TASKS[name.strip().lower()]
    except KeyError:
        raise TaskError(f"unknown task {name!r}; known are {', '.join(TASKS)}") from None


def load_task(name: str, max_train_examples: int, data_seed: int, data_dir: Path | None = None) -> TaskData:
    """The training examples chosen by ``data_seed``, at most ``max_train_examples``, and the full validation split.

    Args:
        data_dir: the folder of the benchmarks' own files; the tiny tasks need none.

    Raises:
        TaskError: the files are missing, malformed, empty, not UTF-8, or hold unknown labels.
    """
    task = get_task(name)
    if task.tiny:
        train = _tiny(task, "train", _choose(task.n_train, max_train_examples, data_seed))
        validation = _tiny(task, "validation", range(task.n_validation))
    else:
        folder = _folder(task, data_dir)
        pool = _read(task, folder / task.files[0])
        train = [pool[i] for i in _choose(len(pool), max_train_examples, data_seed)]
        validation = _read(task, folder / task.files[1])
    return TaskData(task, tuple(train), tuple(validation), _fingerprint(task, train, validation))


def _choose(n: int, at_most: int, data_seed: int) -> Sequence[int]:
    return range(n) if n <= at_most else sorted(random.Random(data_seed).sample(range(n), at_most))


def _tiny(task: Task, split: str, indices: Sequence[int]) -> list[Example]:
    first, second = task.fields
    return [
        Example(row["idx"], row[first], row[second], task.labels.index(row["label"]))
        for row in examples(task.name, split, indices)
    ]


def _folder(task: Task, data_dir: Path | None) -> Path:
    if data_dir is None:
        raise TaskError(
            f"task {task.name} needs the benchmark's own files: name their folder with --data-dir "
            f"(with {task.folder}/{task.files[0]} in it, or one folder deeper)"
        )
    if not data_dir.is_dir():
        raise TaskError(f"the data folder {data_dir} does not exist or is not a folder")
    for parent in (data_dir, *sorted(data_dir.iterdir())):
        # Archives differ in upper and lower case, and in whether they have a folder of their own.
        for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
            if folder.is_dir() and folder.name.lower() == task.folder.lower():
                for file in task.files:
                    if not (folder / file).is_file():
                        raise TaskError(f"task {task.name}: {folder} lacks the file {file}")
                return folder
    raise TaskError(f"task {task.name}: {data_dir} has no folder {task.folder}, nor has a folder in it")


def _read(task: Task, path: Path) -> list[Example]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TaskError(f"{path} is not UTF-8 text (byte {error.start})") from None
    rows = _tsv_rows(path, text) if path.suffix == ".tsv" else _json_rows(path, text)
    wanted = (*task.fields, task.label_field)
    found = []
    for number, row in rows:
        missing = [name for name in wanted if name not in row]
        if missing:
            raise TaskError(
                f"{path}, line {number}: no column {', '.join(missing)}; it has {', '.join(row)}, "
                f"task {task.name} needs {', '.join(wanted)}"
            )
        label = str(row[task.label_field])
        if label not in task.labels:
            accepted = ", ".join(task.labels)
            raise TaskError(f"{path}, line {number}: unknown label {label!r}; accepted are {accepted}")
        example_id = str(row.get("index", row.get("idx", number)))
        first, second = (row[name] for name in task.fields)
        if not isinstance(first, str) or not isinstance(second, str):
            raise TaskError(f"{path}, line {number}: {' and '.join(task.fields)} must be text")
        found.append(Example(example_id, first, second, task.labels.index(label)))
    if not found:
        raise TaskError(f"{path} holds no examples")
    return found


def _tsv_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a tab-separated file in which a quote is just a character, with line numbers."""
    # Lines end at line feeds alone: texts may hold other separators that str.splitlines cuts at.
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
