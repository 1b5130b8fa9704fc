"""Rows that no trial can use are refused in one sentence, before anything is trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lfreeze import hub
from lfreeze.data.loading import load_task
from lfreeze.data.tasks import TASKS, Example, TaskError

ROW: dict[str, Any] = {"premise": "p", "hypothesis": "h", "label": "neutral", "idx": 0}
RTE = "index\tsentence1\tsentence2\tlabel"


def refusal(task: str, data_dir: Path | None = None) -> str:
    with pytest.raises(TaskError) as caught:
        load_task(task, 100, 0, data_dir)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def write_cb(folder: Path, last: str) -> Path:
    (folder / "CB").mkdir(parents=True, exist_ok=True)
    good = json.dumps(ROW)
    (folder / "CB" / "train.jsonl").write_text(good)
    (folder / "CB" / "val.jsonl").write_text(f"{good}\n{last}\n")
    return folder


@pytest.mark.parametrize(
    ("text", "empty"),
    [
        ('{"premise": "", "hypothesis": "", %s', "premise and hypothesis .* '7' are empty"),
        ('{"premise": "", "hypothesis": "h", %s', "premise of the validation example '7' is empty"),
        ('{"premise": "p", "hypothesis": " \\n\\t\\u00a0", %s', "hypothesis of the validation example '7'"),
        ('{"premise": "p", "hypothesis": "\\u200b\\ufeff\\u2028", %s', "hypothesis .* is empty"),
    ],
)
def test_a_text_that_shows_nothing(tmp_path: Path, text: str, empty: str) -> None:
    write_cb(tmp_path, text % '"label": "neutral", "idx": 7}')
    with pytest.raises(TaskError, match=empty):
        load_task("cb", 100, 0, tmp_path)
    # Examples that the trial does not use may be empty: the benchmarks' own files hold a few.
    assert len(load_task("cb", 100, 0, tmp_path, max_validation_examples=1).validation) == 1


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (ROW | {"premise": "a \ud83d b"}, "line 2: premise contains U+D83D, half of a surrogate pair"),
        (ROW | {"hypothesis": "\udc00"}, "line 2: hypothesis contains U+DC00"),
        (ROW | {"idx": "\ud83d"}, "line 2: idx contains U+D83D"),
        (ROW | {"premise": "a\0b"}, "line 2: premise contains the character NUL"),
        (ROW | {"premise": "é\0"}, "line 2: premise contains the character NUL"),
        (ROW | {"premise": 5}, "premise and hypothesis must be text"),
        (ROW | {"hypothesis": None}, "premise and hypothesis must be text"),
        (ROW | {"label": None}, "unknown label null; accepted are entailment"),
        (ROW | {"label": True}, "unknown label 'True'"),
        (ROW | {"label": ["neutral"]}, "unknown label of type list"),
        (ROW | {"label": "x" * 10_000}, "unknown label 'xxx"),
        (ROW | {"idx": [1]}, "the example's index must be a number or text, not list"),
        ("[" * 100_000, "line 2: JSON that is nested too deeply"),
        ('{"premise": ' + '{"a": ' * 100_000, "line 2: JSON that is nested too deeply"),
        ('{"idx": ' + "1" * 5_000 + "}", "line 2: JSON with an integer of too many digits"),
        (
            json.dumps(ROW)[:-1] + ', "label": "entailment"}',
            "line 2: JSON with two values of the key 'label'",
        ),
    ],
)
def test_json_lines_that_no_trial_can_use(tmp_path: Path, last: Any, expected: str) -> None:
    folder = write_cb(tmp_path, last if isinstance(last, str) else json.dumps(last))
    message = refusal("cb", folder)
    assert expected in message
    assert "val.jsonl" in message


def test_a_surrogate_pair_is_a_character(tmp_path: Path) -> None:
    write_cb(
        tmp_path, '{"premise": "a \\ud83d\\ude00", "hypothesis": "\\u00e9", "label": "neutral", "idx": 7}'
    )
    assert load_task("cb", 100, 0, tmp_path).validation[1].first == "a \U0001f600"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (f"{RTE}\n0\t\tb\tentailment\n".encode(), "sentence1 of the validation example '0' is empty"),
        (f"{RTE}\tlabel\n0\ta\tb\tentailment\tentailment\n".encode(), "has 2 columns label"),
        (f"{RTE}\n0\ta\tb\tentailment\n".encode("utf-16"), "is not UTF-8 text (byte 0)"),
        (f"{RTE}\n0\ta\tb\tentailment\n".encode("utf-16-le"), "is not UTF-8 text (byte 1 is NUL)"),
        (f"{RTE}\n0\ta\0\tb\tentailment\n".encode(), "is NUL"),
    ],
)
def test_tables_that_no_trial_can_use(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "RTE").mkdir()
    (tmp_path / "RTE" / "train.tsv").write_text(f"{RTE}\n0\ta\tb\tentailment\n")
    (tmp_path / "RTE" / "dev.tsv").write_bytes(content)
    assert expected in refusal("rte", tmp_path)


class HostedTask:
    """A task whose Parquet files are in a folder that takes the place of the hub's cache."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self._folder = folder
        monkeypatch.setattr(hub, "snapshot", lambda *_, **__: hub.Snapshot(folder, "a" * 40))

    def write(self, task: str, metadata: str | None, **columns: Any) -> None:
        first, second = TASKS[task].fields
        table = pa.table({first: ["a"], second: ["b"], "label": [0]} | columns)
        if metadata is not None:
            table = table.replace_schema_metadata({"huggingface": metadata})
        (self._folder / task).mkdir(exist_ok=True)
        for split in ("train", "validation"):
            pq.write_table(table, self._folder / task / f"{split}-00000-of-00001.parquet")


@pytest.fixture
def hosted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostedTask:
    return HostedTask(tmp_path, monkeypatch)


def features(label: Any) -> str:
    return json.dumps({"info": {"features": {"label": label}}})


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("cb", ["contradiction", "entailment", "neutral"]),
        ("cb", ["yes", "no", "maybe"]),
        ("cb", ["Entailment", "Contradiction", "Neutral"]),
        ("cb", ["entailment", "contradiction"]),
        ("cb", ["entailment", "contradiction", "neutral", "other"]),
        ("cb", [0, 1, 2]),
        ("rte", ["not_entailment", "entailment"]),
        ("wnli", ["entailment", "not_entailment"]),
        ("wnli", ["1", "0"]),
    ],
)
def test_label_names_that_are_not_the_tasks(hosted: HostedTask, task: str, names: list[Any]) -> None:
    """Their indices would mean other labels, and a model would learn a permutation unnoticed."""
    hosted.write(task, features({"names": names, "_type": "ClassLabel"}))
    assert f"its labels are {', '.join(map(str, names))}; task {task} needs" in refusal(task)


@pytest.mark.parametrize(
    ("task", "label"),
    [
        ("cb", {"names": ["entailment", "contradiction", "neutral"]}),
        ("cb", {"feature": {"names": ["entailment", "contradiction", "neutral"]}}),
        ("wnli", {"names": ["not_entailment", "entailment"]}),
        ("wnli", {"names": ["0", "1"]}),
        ("cb", {"dtype": "int64", "_type": "Value"}),
    ],
)
def test_label_names_that_are_the_tasks(hosted: HostedTask, task: str, label: Any) -> None:
    hosted.write(task, features(label))
    assert load_task(task, 10, 0).train[0].label == 0


def test_labels_stored_as_names_are_mapped_by_name(hosted: HostedTask) -> None:
    hosted.write("cb", None, label=pa.array(["neutral"]).dictionary_encode())
    assert load_task("cb", 10, 0).train[0].label == 2


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"label": pa.array([None], pa.int64())}, "unknown label null"),
        ({"label": [True]}, "unknown label 'True'"),
        ({"label": [2**62]}, f"unknown label '{2**62}'"),
        ({"label": [1.0]}, "unknown label '1.0'"),
        ({"premise": [5]}, "must be text"),
        ({"premise": [b"a"]}, "must be text"),
        ({"premise": ["a\0b"]}, "premise contains the character NUL"),
        ({"premise": [" "]}, "premise of the training example '1' is empty"),
    ],
)
def test_parquet_rows_that_no_trial_can_use(
    hosted: HostedTask, columns: dict[str, Any], expected: str
) -> None:
    hosted.write("cb", None, **columns)
    assert expected in refusal("cb")


def test_parquet_files_that_no_trial_can_use(hosted: HostedTask, tmp_path: Path) -> None:
    hosted.write("cb", "[" * 100_000)
    assert "its metadata is JSON that is nested too deeply" in refusal("cb")
    table = pa.Table.from_arrays(
        [pa.array(["a"]), pa.array(["b"]), pa.array([0]), pa.array([1])],
        names=["premise", "hypothesis", "label", "label"],
    )
    pq.write_table(table, tmp_path / "cb" / "train-00000-of-00001.parquet")
    assert "has 2 columns label, of which it may have one" in refusal("cb")


def test_a_single_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its column is checked as the two of a pair are, and a quote is a character of it."""
    single = replace(TASKS["rte"], name="single", fields=("sentence1",))
    monkeypatch.setitem(TASKS, "single", single)
    (tmp_path / "RTE").mkdir()
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / "RTE" / name).write_text(f'index\tsentence1\tlabel\n7\t"a\t{single.labels[1]}\n')
    data = load_task("single", 10, 0, tmp_path)
    assert data.train == (Example("7", '"a', None, 1),)
    (tmp_path / "RTE" / "dev.tsv").write_text(f"index\tsentence1\tlabel\n7\t \t{single.labels[1]}\n")
    assert "example '7' is empty; every example needs a text" in refusal("single", tmp_path)
