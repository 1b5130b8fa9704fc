"""Text classification tasks: the paper's five (§4.1, Table 1), four more of GLUE, the tiny ones, and one's own.

``lfreeze.data.loading`` loads their examples; nothing here imports torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lfreeze.errors import InputError, shown
from lfreeze.tiny.tasks import TINY_TASKS


class TaskError(InputError):
    """A task or its data that cannot be used; the message names the problem and what is accepted."""


@dataclass(frozen=True)
class Task:
    """One task: its labels in index order, its text fields, and the sources of its examples.

    Attributes:
        fields: one column of single texts, or two columns of pairs.
        labels: of a task of one's own, empty until its files are read, unless they are declared.
        n_train, n_validation: official sizes, in examples; of a task of one's own, assumed until its files are read.
        printed: the task's row of the paper's Table 1; None for a task that the paper does not have.
        dataset_id: the hub's dataset and the task's name in it.
        archive: the benchmark's original files; None for a task that is not read from them.
        hosted: the dataset on the hub; None for a task that is not there.
        own: what only a task of one's own has; None for a built-in one.
    """

    name: str
    fields: tuple[str, ...]
    labels: tuple[str, ...]
    n_train: int
    n_validation: int
    dataset_id: str
    archive: Archive | None = None
    hosted: Hosted | None = None
    printed: Printed | None = None
    own: Own | None = None

    @property
    def tiny(self) -> bool:
        """Whether the examples are generated: no files have them."""
        return self.archive is None and self.hosted is None and self.own is None


@dataclass(frozen=True)
class Printed:
    """A row of the paper's Table 1 as printed, rounded there: training examples used, available, percent used."""

    n_used: int
    n_available: int
    percent: float


@dataclass(frozen=True)
class Archive:
    """A benchmark's original files: folder, training and validation file, and the label's column."""

    folder: str
    files: tuple[str, str]
    label_field: str = "label"


@dataclass(frozen=True)
class Hosted:
    """A dataset on the hub: Parquet files by split, with labels as indices.

    Attributes:
        config: the task's folder in the repository.
        splits: names of the training and the validation split; one, if the validation examples are drawn from it.
        fields: columns of the text, or of the two texts.
        label_names: the labels' names in its metadata, in index order, if they are not the task's.
    """

    repo_id: str
    revision: str
    config: str
    splits: tuple[str, ...]
    fields: tuple[str, ...]
    label_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Own:
    """Where the examples of a task of one's own are.

    Attributes:
        label: the labels' column.
        files: the training and the validation file, or the one file of both; empty for a dataset on the hub.
        validation_fraction: the part of the examples that is drawn for validation; 0 where the splits are given.
    """

    label: str
    files: tuple[Path, ...] = ()
    validation_fraction: float = 0.0


@dataclass(frozen=True)
class Example:
    """One text, or a pair such as premise and hypothesis, with the index of its label.

    Attributes:
        second: the second text of a pair; None for a single text.
    """

    example_id: str
    first: str
    second: str | None
    label: int

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.first,) if self.second is None else (self.first, self.second)


@dataclass(frozen=True)
class TaskData:
    """The examples that a trial uses.

    Attributes:
        fingerprint: a hash of these examples, in order.
        content_hash: a hash of the complete splits from which they were chosen.
        n_available: number of examples in the complete training split.
        n_validation_available: the same for the validation split.
        revision: the commit of the files, if they come from the hub.
        files: the files that were read, by their names in the repository or archive.
    """

    task: Task
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    fingerprint: str
    content_hash: str
    n_available: int
    n_validation_available: int
    revision: str | None = None
    files: tuple[tuple[str, Path], ...] = ()

    @property
    def majority_accuracy(self) -> float:
        """The accuracy of always predicting the validation split's most frequent label."""
        counts = Counter(example.label for example in self.validation)
        return max(counts.values()) / len(self.validation)


def _glue(
    name: str,
    fields: tuple[str, str],
    labels: tuple[str, ...],
    sizes: tuple[int, int],
    archive: Archive,
    printed: Printed,
    *,
    validation: str = "validation",
    hosted_fields: tuple[str, str] | None = None,
    hosted_labels: tuple[str, ...] = (),
) -> Task:
    hosted = Hosted(*_GLUE, name, ("train", validation), hosted_fields or fields, hosted_labels)
    return Task(name, fields, labels, *sizes, f"{_GLUE[0]}/{name}", archive, hosted, printed)


def _glue_only(name: str, fields: tuple[str, ...], labels: tuple[str, str], sizes: tuple[int, int]) -> Task:
    """A task of GLUE that the paper does not have, read from the hub alone."""
    hosted = Hosted(*_GLUE, name, ("train", "validation"), fields)
    return Task(name, fields, labels, *sizes, f"{_GLUE[0]}/{name}", hosted=hosted)


_GLUE = ("nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c")
_SUPER_GLUE = ("aps/super_glue", "3de24cf8022e94f4ee4b9d55a6f539891524d646")
_TSV = ("train.tsv", "dev.tsv")
_SENTENCES = ("sentence1", "sentence2")
_PREMISE = ("premise", "hypothesis")
_ENTAILED = ("entailment", "not_entailment")
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _glue("rte", _SENTENCES, _ENTAILED, (2_490, 277), Archive("RTE", _TSV), Printed(2_500, 2_500, 100)),
        _glue(
            "qnli",
            ("question", "sentence"),
            _ENTAILED,
            (104_743, 5_463),
            Archive("QNLI", _TSV),
            Printed(3_200, 105_000, 3.0),
        ),
        _glue(
            "wnli",
            _SENTENCES,
            ("0", "1"),
            (635, 71),
            Archive("WNLI", _TSV),
            Printed(635, 635, 100),
            # The archive calls the labels 0 and 1; the hub names their meaning.
            hosted_labels=("not_entailment", "entailment"),
        ),
        _glue(
            "mnli",
            _SENTENCES,
            ("entailment", "neutral", "contradiction"),
            (392_702, 9_815),
            Archive("MNLI", ("train.tsv", "dev_matched.tsv"), "gold_label"),
            Printed(3_200, 392_000, 0.8),
            validation="validation_matched",
            hosted_fields=_PREMISE,
        ),
        Task(
            "cb",
            _PREMISE,
            ("entailment", "contradiction", "neutral"),
            250,
            56,
            f"{_SUPER_GLUE[0]}/cb",
            Archive("CB", ("train.jsonl", "val.jsonl")),
            Hosted(*_SUPER_GLUE, "cb", ("train", "validation"), _PREMISE),
            Printed(250, 250, 100),
        ),
        _glue_only("sst2", ("sentence",), ("negative", "positive"), (67_349, 872)),
        _glue_only("mrpc", _SENTENCES, ("not_equivalent", "equivalent"), (3_668, 408)),
        _glue_only("qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), (363_846, 40_430)),
        _glue_only("cola", ("sentence",), ("unacceptable", "acceptable"), (8_551, 1_043)),
        *(
            Task(t.name, t.fields, t.labels, t.n_train, t.n_validation, f"lfreeze.tiny/{t.name}")
            for t in TINY_TASKS.values()
        ),
    )
}


def get_task(name: str, own: Mapping[str, Task] | None = None) -> Task:
    """The task called ``name``.

    Args:
        own: tasks of one's own, by name.

    Raises:
        TaskError: there is no such task.
    """
    own = own or {}
    try:
        return own.get(name.strip()) or TASKS[name.strip().lower()]
    except KeyError:
        raise TaskError(f"unknown task {shown(name)}; known are {', '.join([*own, *TASKS])}") from None
