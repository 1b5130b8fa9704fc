"""The examples of a task: from the benchmark's original files, from the hub, from one's own files, or generated.

The results are plain texts and label indices; nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from lfreeze import hub
from lfreeze.data.own import held_out, read_own
from lfreeze.data.rows import read_archived, read_parquet, require_visible_texts
from lfreeze.data.tasks import Example, Hosted, Task, TaskData, TaskError, get_task
from lfreeze.tiny.tasks import examples

# The branch with the hub's Parquet copy of a dataset that is in another format.
_CONVERTED = "refs/convert/parquet"
_SPLITS = ("train", "validation")


def load_task(
    task: Task | str,
    max_train_examples: int,
    data_seed: int,
    data_dir: Path | None = None,
    max_validation_examples: int = 0,
) -> TaskData:
    """Load the training examples drawn by ``data_seed``, and the validation split, as ``load_samples``."""
    samples = load_samples(task, max_train_examples, [data_seed], data_dir, max_validation_examples)
    return samples[data_seed]


def load_samples(
    task: Task | str,
    max_train_examples: int,
    data_seeds: Iterable[int],
    data_dir: Path | None = None,
    max_validation_examples: int = 0,
) -> dict[int, TaskData]:
    """Load the training examples drawn by each of some seeds, and the validation split; by seed.

    A task with too few training examples to draw from has the same for every seed.

    Args:
        task: a task, or the name of a built-in one.
        max_train_examples: how many training examples to draw at most.
        data_dir: the folder with the benchmarks' original files; without it, real tasks come from the hub, and so
            do those that have no such files.
        max_validation_examples: use the first so many of the validation split; 0 means all.

    Raises:
        TaskError: the files are missing, malformed, empty or not UTF-8, or have an unknown label or a
            validation label that no training example has; or one of the examples to use has an empty text.
        HubError: the task is not available from the hub.
    """
    task = get_task(task) if isinstance(task, str) else task
    return _load(task, max_train_examples, data_seeds, data_dir, max_validation_examples or None)


def _load(
    task: Task, max_train_examples: int, data_seeds: Iterable[int], data_dir: Path | None, at_most: int | None
) -> dict[int, TaskData]:
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
    if data_dir is not None and task.archive is not None:
        revision, files = None, _archived(task, data_dir)
        splits = [read_archived(task, path) for _, path in files]
    elif task.own is not None and task.own.files:
        revision, files = None, _own_files(task)
        task, splits = read_own(task, [[path] for _, path in files])
    else:
        revision, hosted = _hosted(task)
        files = [item for split in hosted for item in split.items()]
        paths = [list(split.values()) for split in hosted]
        if task.own is not None:
            task, splits = read_own(task, paths)
        else:
            splits = [read_parquet(task, of_split) for of_split in paths]
    content = _fingerprint(task, splits[0], splits[1] if len(splits) > 1 else [])

    def chosen(
        available: Sequence[Example], full_validation: Sequence[Example], indices: Sequence[int]
    ) -> TaskData:
        train, validation = [available[i] for i in indices], full_validation[:at_most]
        require_visible_texts(task, "training", train)
        require_visible_texts(task, "validation", validation)
        sizes = len(available), len(full_validation)
        return TaskData(
            replace(task, n_train=sizes[0], n_validation=sizes[1]) if task.own else task,
            tuple(train),
            tuple(validation),
            _fingerprint(task, train, validation),
            content,
            *sizes,
            revision,
            tuple(files),
        )

    if len(splits) == 1:
        return {
            seed: chosen(*parts, _draw(len(parts[0]), max_train_examples, seed))
            for seed in data_seeds
            for parts in [held_out(task, splits[0], seed)]
        }
    available, full_validation = splits
    unseen = sorted({e.label for e in full_validation} - {e.label for e in available})
    if unseen:
        raise TaskError(
            f"task {task.name}: the label {task.labels[unseen[0]]!r} is in the validation split, "
            "but no training example has it"
        )
    return _samples(
        partial(chosen, available, full_validation), len(available), max_train_examples, data_seeds
    )


def described(task: Task) -> Task:
    """A task of one's own with the labels and sizes that its files give it, if they are on this machine.

    Raises:
        TaskError: a file cannot be used.
    """
    if task.own is None or not task_availability(task, ask_hub=False).cached:
        return task
    return load_task(task, 1, 0).task


def _samples(
    take: Callable[[Sequence[int]], TaskData], n: int, at_most: int, data_seeds: Iterable[int]
) -> dict[int, TaskData]:
    """By seed, the data with the training examples that the seed draws from ``n``."""
    if n <= at_most:
        return dict.fromkeys(data_seeds, take(range(n)))
    return {seed: take(_draw(n, at_most, seed)) for seed in data_seeds}


def _draw(n: int, at_most: int, seed: int) -> list[int]:
    if n <= at_most:
        return list(range(n))
    # Python ignores the sign of a seed.
    return sorted(random.Random(seed % 2**64).sample(range(n), at_most))


def _tiny(task: Task, split: str, indices: Sequence[int]) -> list[Example]:
    first, second = task.fields[0], task.fields[1] if len(task.fields) > 1 else None
    return [
        Example(row["idx"], row[first], row[second] if second else None, task.labels.index(row["label"]))
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


def _own_files(task: Task) -> list[tuple[str, Path]]:
    """The files by split and name: two splits may have files of equal names in two folders."""
    assert task.own is not None
    return [(f"{split}/{path.name}", path) for split, path in zip(_SPLITS, task.own.files, strict=False)]


def _hosted(task: Task) -> tuple[str, list[dict[str, Path]]]:
    """The hub's commit, and the Parquet files of each split, by their names in the repository."""
    source = task.hosted
    if source is None:
        raise TaskError(f"task {task.name} is not on the hub: give the folder of its files with --data-dir")
    choose, complete = _chooser(source)
    first: hub.HubError | None = None
    # A commit that the user pins is not replaced by a copy of another one.
    pinned = task.own is not None and source.revision != "main"
    for revision in (source.revision,) if pinned else (source.revision, _CONVERTED):
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
    return snapshot.revision, [
        {name: snapshot.folder / name for name in _parquet_names(source.config, split, present)}
        for split in source.splits
    ]


def task_availability(task: Task, *, ask_hub: bool = True) -> hub.Availability:
    """Whether ``load_task`` would succeed without ``data_dir``; generated tasks and one's own files count as cached.

    Args:
        ask_hub: False looks only into the cache.
    """
    if task.tiny or (task.own is not None and task.own.files):
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

    Args:
        config: a folder; empty for a dataset with only one configuration.
    """
    folder = re.escape(config) if config else "(?:data|default)"
    pattern = re.compile(
        rf"{folder}/{re.escape(split)}(-\d+-of-(?P<count>\d+)(?:-[0-9a-f]{{16}})?|/\d+)\.parquet"
    )
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
