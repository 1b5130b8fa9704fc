"""The examples of a task: from the benchmark's original files, from the hub, or generated.

The results are plain texts and label indices; nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from lfreeze import hub
from lfreeze.data.rows import read_archived, read_parquet, require_visible_texts
from lfreeze.data.tasks import Example, Hosted, Task, TaskData, TaskError, get_task
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
    """Load the training examples drawn by ``data_seed``, and the validation split, as ``load_samples``."""
    samples = load_samples(name, max_train_examples, [data_seed], data_dir, max_validation_examples)
    return samples[data_seed]


def load_samples(
    name: str,
    max_train_examples: int,
    data_seeds: Iterable[int],
    data_dir: Path | None = None,
    max_validation_examples: int = 0,
) -> dict[int, TaskData]:
    """Load the training examples drawn by each of some seeds, and the validation split; by seed.

    A task with too few training examples to draw from has the same for every seed.

    Args:
        max_train_examples: how many training examples to draw at most.
        data_dir: the folder with the benchmarks' original files; without it, real tasks come from the hub.
        max_validation_examples: use the first so many of the validation split; 0 means all.

    Raises:
        TaskError: the files are missing, malformed, empty or not UTF-8, or have an unknown label or a
            validation label that no training example has; or one of the examples to use has an empty text.
        HubError: the task is not available from the hub.
    """
    task = get_task(name)
    at_most = max_validation_examples or None
    if task.tiny:
        validation = _tiny(task, "validation", range(task.n_validation)[:at_most])

        def generated(indices: Sequence[int]) -> TaskData:
            train = _tiny(task, "train", indices)
            fingerprint = _fingerprint(task, train, validation)
            # Generated examples depend on the code alone.
            content = f"generated {task.name}"
            sizes = task.n_train, task.n_validation
            return TaskData(task, tuple(train), tuple(validation), fingerprint, content, *sizes)

        return _samples(generated, task.n_train, max_train_examples, data_seeds)
    if data_dir is not None:
        revision, files = None, _archived(task, data_dir)
        available, full_validation = (read_archived(task, path) for _, path in files)
    else:
        revision, splits = _hosted(task)
        available, full_validation = (read_parquet(task, list(split.values())) for split in splits)
        files = [item for split in splits for item in split.items()]
    unseen = sorted({e.label for e in full_validation} - {e.label for e in available})
    if unseen:
        raise TaskError(
            f"task {task.name}: the label {task.labels[unseen[0]]!r} is in the validation split, "
            "but no training example has it"
        )
    validation = full_validation[:at_most]
    content = _fingerprint(task, available, full_validation)

    def read(indices: Sequence[int]) -> TaskData:
        train = [available[i] for i in indices]
        require_visible_texts(task, "training", train)
        require_visible_texts(task, "validation", validation)
        return TaskData(
            task,
            tuple(train),
            tuple(validation),
            _fingerprint(task, train, validation),
            content,
            len(available),
            len(full_validation),
            revision,
            tuple(files),
        )

    return _samples(read, len(available), max_train_examples, data_seeds)


def _samples(
    take: Callable[[Sequence[int]], TaskData], n: int, at_most: int, data_seeds: Iterable[int]
) -> dict[int, TaskData]:
    """By seed, the data with the training examples that the seed draws from ``n``."""
    if n <= at_most:
        return dict.fromkeys(data_seeds, take(range(n)))
    return {seed: take(_draw(n, at_most, seed)) for seed in data_seeds}


def _draw(n: int, at_most: int, seed: int) -> list[int]:
    # Python ignores the sign of a seed.
    return sorted(random.Random(seed % 2**64).sample(range(n), at_most))


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


def task_availability(task: Task, *, ask_hub: bool = True) -> hub.Availability:
    """Whether ``load_task`` would succeed without ``data_dir``; generated tasks count as cached.

    Args:
        ask_hub: False looks only into the cache.
    """
    if task.tiny:
        return hub.Availability(cached=True)
    if task.hosted is None:
        return hub.Availability(
            cached=False, problem="not on the hub: give the folder of its files with --data-dir"
        )
    return hub.check_availability(
        task.hosted.repo_id, task.hosted.revision, *_chooser(task.hosted), kind="dataset", ask_hub=ask_hub
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


def _fingerprint(task: Task, train: Sequence[Example], validation: Sequence[Example]) -> str:
    digest = hashlib.sha256(json.dumps(task.labels).encode())
    for split in (train, validation):
        for e in split:
            digest.update(json.dumps([e.example_id, e.first, e.second, e.label]).encode())
        digest.update(b"\0")
    return digest.hexdigest()
