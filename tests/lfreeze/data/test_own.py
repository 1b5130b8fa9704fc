"""Tasks of one's own, against pandas and scikit-learn."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.model_selection import train_test_split

from lfreeze import hub
from lfreeze.data.loading import described, load_samples, load_task
from lfreeze.data.tasks import Example, Hosted, Own, Task, TaskError

TEXTS = ["plain", 'she said "go", twice', "two\nlines", "two\r\nlines", "a,b", "'", "3.0", "NA"]


def own(*files: Path, labels: tuple[str, ...] = (), fraction: float = 0.0) -> Task:
    return Task("mine", ("text",), labels, 100, 10, "local/mine", own=Own("label", files, fraction))


def write(path: Path, rows: list[tuple[object, object]]) -> Path:
    frame = pd.DataFrame(rows, columns=["text", "label"])
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dict("records")))
    return path


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("labels", [["bad", "good", "fair", "best"], [10, 9, -1, 2]])
def test_texts_and_labels_are_those_that_pandas_wrote(
    ending: str, labels: list[object], tmp_path: Path
) -> None:
    rows = [(TEXTS[i % 8], labels[i % 4]) for i in range(40)]
    files = (write(tmp_path / f"train.{ending}", rows), write(tmp_path / f"dev.{ending}", rows[:9]))
    data = load_task(own(*files), 100, 0)
    assert data.task.labels == tuple(str(label) for label in sorted(labels))  # type: ignore[type-var]
    assert [(e.first, e.second, data.task.labels[e.label]) for e in data.train] == [
        (text, None, str(label)) for text, label in rows
    ]
    assert len(data.validation) == data.task.n_validation == 9
    assert (data.n_available, data.task.n_train, data.revision) == (40, 40, None)
    assert [name for name, _ in data.files] == [f"train/train.{ending}", f"validation/dev.{ending}"]


def test_declared_labels_keep_their_order_and_change_the_fingerprint(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [(f"text {i}", "xyz"[i % 3]) for i in range(9)])
    found, declared = (
        load_task(own(path, path), 9, 0),
        load_task(own(path, path, labels=("z", "x", "y")), 9, 0),
    )
    assert [e.label for e in found.train[:3]] == [0, 1, 2]
    assert [e.label for e in declared.train[:3]] == [1, 2, 0]
    assert found.fingerprint != declared.fingerprint
    with pytest.raises(TaskError, match=r"a.csv, line 4: unknown label 'z'; accepted are x, y$"):
        load_task(own(path, path, labels=("x", "y")), 9, 0)


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.9])
def test_a_drawn_validation_split_is_stratified(fraction: float, tmp_path: Path) -> None:
    """As scikit-learn's, to one example of each label; all examples are used once."""
    rows = [(f"text {i}", "aaaaaabbbc"[i % 10]) for i in range(130)]
    path = write(tmp_path / "a.csv", rows)
    data = load_samples(own(path, fraction=fraction), 1000, (0, 1, 2))
    _, expected = train_test_split(
        [label for _, label in rows],
        test_size=fraction,
        stratify=[label for _, label in rows],
        random_state=0,
    )
    for part in data.values():
        counts = Counter(part.task.labels[e.label] for e in part.validation)
        assert all(abs(counts[label] - count) <= 1 for label, count in Counter(expected).items())
        assert len(part.validation) == round(fraction * 130)
        assert sorted(e.first for e in (*part.train, *part.validation)) == sorted(text for text, _ in rows)
        assert part.n_available + part.n_validation_available == 130
    assert len({part.fingerprint for part in data.values()}) == 3
    assert len({part.content_hash for part in data.values()}) == 1
    assert load_task(own(path, fraction=fraction), 1000, 1) == data[1]
    few = load_task(own(path, fraction=fraction), 5, 1)
    assert few.validation == data[1].validation
    assert len(few.train) == 5
    assert {*few.train} < {*data[1].train}


def test_a_rare_label_keeps_a_training_example(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [(f"text {i}", "b" if i == 3 else "a") for i in range(10)])
    for seed in range(20):
        data = load_task(own(path, fraction=0.5), 100, seed)
        assert (len(data.train), {e.label for e in data.train}) == (5, {0, 1})


def test_pairs_and_label_names_in_a_parquet_files_metadata(tmp_path: Path) -> None:
    info = {"info": {"features": {"label": {"names": ["yes", "no", "never"], "_type": "ClassLabel"}}}}
    table = pa.table({"a": ["1", "2", "3", "4"], "b": ["5", "6", "7", "8"], "label": [1, 0, 1, 0]})
    path = tmp_path / "a.parquet"
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(info)}), path)
    task = Task("mine", ("b", "a"), (), 1, 1, "local/mine", own=Own("label", (path, path)))
    data = load_task(task, 10, 0)
    assert data.task.labels == ("yes", "no", "never")
    assert data.train[0] == Example("1", "5", "1", 1)
    ordered = load_task(Task("mine", ("b", "a"), ("no", "yes"), 1, 1, "", own=task.own), 10, 0)
    assert [e.label for e in ordered.train] == [0, 1, 0, 1]


def test_a_dataset_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one configuration, in folders as people and as the hub's copy name them; the commit is recorded."""
    for folder, names in (("data", ["train-00000-of-00001-0123456789abcdef"]), ("default", ["train/0000"])):
        (tmp_path / folder / "train").mkdir(parents=True)
        for name in names:
            write(tmp_path / folder / f"{name}.parquet", [(f"text {i}", i % 2) for i in range(10)])
        asked: list[str] = []

        def snapshot(
            repo: str, revision: str, *_: object, asked: list[str] = asked, **__: object
        ) -> hub.Snapshot:
            asked.append(f"{repo}@{revision}")
            return hub.Snapshot(tmp_path, "c" * 40)

        monkeypatch.setattr(hub, "snapshot", snapshot)
        hosted = Hosted("org/name", "v1", "", ("train",), ("text",))
        task = Task("mine", ("text",), (), 1, 1, "org/name", hosted=hosted, own=Own("label", (), 0.2))
        data = load_task(task, 100, 0)
        assert (asked, data.revision, len(data.validation)) == (["org/name@v1"], "c" * 40, 2)
        assert data.task.labels == ("0", "1")
        (tmp_path / folder / f"{names[0]}.parquet").unlink()


def test_described_reads_files_that_are_here(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [(f"text {i}", i % 3) for i in range(30)])
    task = described(own(path, fraction=0.1))
    assert (task.labels, task.n_train, task.n_validation) == (("0", "1", "2"), 27, 3)


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        (
            "text,stars\na,1\n",
            "",
            "train.csv: no column label; it has text, stars, task mine needs text, label",
        ),
        (
            "text,label\na,1\nb,1\nc,1\n",
            "text,label\na,1\n",
            "train.csv: every example has the label '1'; task mine needs two labels at least",
        ),
        (
            "text,label\na,1\nb,2\nc,1\n",
            'text,label\na,1\n"b\nc",1\nd,3\n',
            "dev.csv, line 5: unknown label '3'; accepted are 1, 2",
        ),
        ("text,label\na,1\nb,2\nc,1\n", "text,label\n", "dev.csv contains no examples"),
        (
            "text,label\na,x1\nb,x2\nc,x3\n",
            "text,label\na,x1\n",
            "train.csv: 3 values of label in 3 examples; task mine needs more examples than labels",
        ),
        (
            "text,label\na,1\nb,2\n ,1\n",
            "text,label\na,1\n",
            "task mine: text of the training example '4' is empty; every example needs a text",
        ),
        (
            "text,label\na,1\nb,2\nc,\n",
            "text,label\na,1\n",
            "train.csv, line 4: unknown label ''; accepted are 1, 2",
        ),
    ],
)
def test_files_that_cannot_be_used(train: str, validation: str, message: str, tmp_path: Path) -> None:
    files = tmp_path / "train.csv", tmp_path / "dev.csv"
    for path, text in zip(files, (train, validation), strict=True):
        path.write_text(text)
    with pytest.raises(TaskError) as error:
        load_task(own(*files), 100, 0)
    assert message in str(error.value)


def test_a_null_text_or_label_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for row, message in (
        ({"text": None, "label": 1}, "a.jsonl, line 5: text must be text, but text is null"),
        ({"text": "e", "label": None}, "a.jsonl, line 5: unknown label null; accepted are 1, 2"),
    ):
        rows: list[dict[str, object]] = [{"text": "a", "label": i % 2 + 1} for i in range(4)]
        path.write_text("\n".join(json.dumps(each) for each in [*rows, row]))
        with pytest.raises(TaskError, match=message):
            load_task(own(path, fraction=0.5), 100, 0)


def test_labels_of_validation_that_no_training_example_has(tmp_path: Path) -> None:
    train = write(tmp_path / "a.csv", [(f"text {i}", "ab"[i % 2]) for i in range(8)])
    dev = write(tmp_path / "b.csv", [("text", "c")])
    with pytest.raises(
        TaskError, match="the label 'c' is in the validation split, but no training example has"
    ):
        load_task(own(train, dev, labels=("a", "b", "c")), 100, 0)
