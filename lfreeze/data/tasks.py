"""The NLI tasks: the paper's five (§4.1, Table 1) and their tiny counterparts.

``lfreeze.data.loading`` loads their examples; nothing here imports torch.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lfreeze.errors import InputError
from lfreeze.tiny.tasks import TINY_TASKS


class TaskError(InputError):
    """A task or its data that cannot be used; the message names what is wrong and what is accepted."""


@dataclass(frozen=True)
class Task:
    """One task: its label set, in index order, its text fields, and where its examples are.

    Attributes:
        n_train, n_validation: official sizes.
        dataset_id: the hub's dataset and the task's name in it.
        archive: the benchmark's own files; None for a tiny task, which is generated.
        hosted: the same on the hub.
    """

    name: str
    fields: tuple[str, str]
    labels: tuple[str, ...]
    n_train: int
    n_validation: int
    dataset_id: str
    archive: Archive | None = None
    hosted: Hosted | None = None

    @property
    def tiny(self) -> bool:
        return self.archive is None


@dataclass(frozen=True)
class Archive:
    """A benchmark's own files: their folder, training and validation file, and column of the label."""

    folder: str
    files: tuple[str, str]
    label_field: str = "label"


@dataclass(frozen=True)
class Hosted:
    """A dataset of the hub: Parquet files by split, in which a label is its index.

    Attributes:
        config: the task's folder in the repository.
        splits: names of the training and the validation split.
        fields: columns of the two texts.
    """

    repo_id: str
    revision: str
    config: str
    splits: tuple[str, str]
    fields: tuple[str, str]


@dataclass(frozen=True)
class Example:
    """One premise and hypothesis (or question and sentence) with the index of its label."""

    example_id: str
    first: str
    second: str
    label: int


@dataclass(frozen=True)
class TaskData:
    """The examples that a trial uses.

    Attributes:
        fingerprint: a hash of all of them, in order.
        content_hash: the same of the whole splits, from which they were chosen.
        n_available: examples of the whole training split, from which ``train`` was chosen.
        n_validation_available: the same for the validation split.
        revision: the hub's commit that they are of, if they are the hub's.
        files: what was read, by its name in the repository or archive.
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
        """The accuracy of always answering the validation split's most frequent label."""
        counts = Counter(example.label for example in self.validation)
        return max(counts.values()) / len(self.validation)


def _glue(
    name: str,
    fields: tuple[str, str],
    labels: tuple[str, ...],
    sizes: tuple[int, int],
    archive: Archive,
    *,
    validation: str = "validation",
    hosted_fields: tuple[str, str] | None = None,
) -> Task:
    hosted = Hosted(*_GLUE, name, ("train", validation), hosted_fields or fields)
    return Task(name, fields, labels, *sizes, f"{_GLUE[0]}/{name}", archive, hosted)


_GLUE = ("nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c")
_SUPER_GLUE = ("aps/super_glue", "3de24cf8022e94f4ee4b9d55a6f539891524d646")
_TSV = ("train.tsv", "dev.tsv")
_SENTENCES = ("sentence1", "sentence2")
_PREMISE = ("premise", "hypothesis")
_ENTAILED = ("entailment", "not_entailment")
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _glue("rte", _SENTENCES, _ENTAILED, (2_490, 277), Archive("RTE", _TSV)),
        _glue("qnli", ("question", "sentence"), _ENTAILED, (104_743, 5_463), Archive("QNLI", _TSV)),
        _glue("wnli", _SENTENCES, ("0", "1"), (635, 71), Archive("WNLI", _TSV)),
        _glue(
            "mnli",
            _SENTENCES,
            ("entailment", "neutral", "contradiction"),
            (392_702, 9_815),
            Archive("MNLI", ("train.tsv", "dev_matched.tsv"), "gold_label"),
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
