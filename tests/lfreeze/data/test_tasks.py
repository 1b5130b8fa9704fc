"""Reading the benchmarks' own files: sizes, quotes, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lfreeze import hub
from lfreeze.data.loading import load_samples, load_task, task_availability
from lfreeze.data.tasks import TASKS, TaskError


def write(folder: Path, name: str, lines: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes("".join(line + "\n" for line in lines).encode())


@pytest.fixture
def rte(tmp_path: Path) -> Path:
    header = "index\tsentence1\tsentence2\tlabel"
    rows = [
        f'{i}\tShe said "go {i}.\tShe spoke.\t{"entailment" if i % 3 else "not_entailment"}' for i in range(9)
    ]
    for name in ("train.tsv", "dev.tsv"):
        write(tmp_path / "glue" / "RTE", name, [header, *rows])
    return tmp_path


def test_paper_sizes() -> None:
    official = {
        name: (TASKS[name].n_train, TASKS[name].n_validation)
        for name in ("rte", "qnli", "wnli", "mnli", "cb")
    }
    assert official == {
        "rte": (2_490, 277),
        "qnli": (104_743, 5_463),
        "wnli": (635, 71),
        "mnli": (392_702, 9_815),
        "cb": (250, 56),
    }


def test_quotes_have_no_special_meaning(rte: Path) -> None:
    data = load_task("rte", 100, 0, rte)
    assert len(data.train) == 9
    assert data.train[4].first == 'She said "go 4.'
    assert [e.label for e in data.validation[:3]] == [1, 0, 0]
    assert data.majority_accuracy == pytest.approx(6 / 9)


def test_training_examples_are_chosen_by_the_data_seed(rte: Path) -> None:
    chosen = {seed: [e.example_id for e in load_task("rte", 4, seed, rte).train] for seed in (0, 1)}
    assert len(chosen[0]) == 4
    assert chosen[0] != chosen[1]
    assert chosen[0] == [e.example_id for e in load_task("RTE", 4, 0, rte).train]


@pytest.mark.parametrize(
    ("name", "seed", "fingerprint"),
    [
        ("tiny-cb", 0, "33d4e1c31c47cb21e25217585790705b77a2a6d3eccf50f02c5f05573549c3c5"),
        ("tiny-qnli", 0, "b661154833558b551de83ac955abb2e0b5f6e2457fc090176d188c840c3b854b"),
        ("tiny-qnli", 7, "a0c43b834717a324cf8f0ad9b2506315f0d4424d374b19ed186e4ce28be5239d"),
    ],
)
def test_what_a_seed_draws_never_changes(name: str, seed: int, fingerprint: str) -> None:
    """Results are kept under ids that contain these."""
    assert load_task(name, 100, seed).fingerprint == fingerprint


def test_several_seeds_draw_what_each_draws_alone(rte: Path) -> None:
    for name, folder in (("rte", rte), ("tiny-cb", None)):
        samples = load_samples(name, 4, (0, 1, -1), folder)
        assert len({data.fingerprint for data in samples.values()}) == 3
        assert len({(data.content_hash, data.validation) for data in samples.values()}) == 1
        for seed, data in samples.items():
            assert data == load_task(name, 4, seed, folder)
        whole = load_samples(name, 1000, (0, 1), folder)
        assert whole[0] is whole[1]


def test_the_fingerprint_changes_with_any_text(rte: Path) -> None:
    before = load_task("rte", 100, 0, rte).fingerprint
    assert before == load_task("rte", 100, 0, rte).fingerprint
    file = rte / "glue" / "RTE" / "dev.tsv"
    file.write_text(file.read_text().replace("go 7", "go  7"))
    assert before != load_task("rte", 100, 0, rte).fingerprint


def test_separators_inside_a_text_do_not_split_it(tmp_path: Path) -> None:
    folder = tmp_path / "WNLI"
    rows = ["index\tsentence1\tsentence2\tlabel\r", "0\ta\u2028b\x0bc\x85\re\td\t1\r"]
    write(folder, "train.tsv", rows)
    write(folder, "dev.tsv", rows)
    assert load_task("wnli", 10, 0, tmp_path).train[0].first == "a\u2028b\x0bc\x85\re"


def test_mnli_and_qnli_columns(tmp_path: Path) -> None:
    write(
        tmp_path / "MNLI",
        "train.tsv",
        ["index\tgenre\tsentence1\tsentence2\tgold_label", "7\tx\tp\th\tneutral"],
    )
    write(tmp_path / "MNLI", "dev_matched.tsv", ["sentence2\tsentence1\tgold_label", "h\tp\tneutral"])
    data = load_task("mnli", 10, 0, tmp_path)
    assert (data.train[0].first, data.train[0].second, data.train[0].label) == ("p", "h", 1)
    assert (data.validation[0].first, data.validation[0].label) == ("p", 1)
    for name in ("train.tsv", "dev.tsv"):
        write(tmp_path / "QNLI", name, ["index\tquestion\tsentence\tlabel", "0\tq?\ts\tentailment"])
    assert load_task("qnli", 10, 0, tmp_path).train[0].first == "q?"


def _break(folder: Path, name: str, content: bytes) -> None:
    (folder / "glue" / "RTE" / name).write_bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"index\tsentence1\tlabel\n0\ta\tentailment\n", "no column sentence2"),
        (
            b"index\tsentence1\tsentence2\tlabel\n0\ta\tb\tmaybe\n",
            "unknown label 'maybe'; accepted are entailment",
        ),
        (b"index\tsentence1\tsentence2\tlabel\n0\ta\tb\n", "line 2: 3 cells where the header has 4"),
        (b"index\tsentence1\tsentence2\tlabel\n", "contains no examples"),
        (b"", "contains no examples"),
        (b"index\tsentence1\tsentence2\tlabel\n0\t\xff\tb\tentailment\n", "is not UTF-8"),
    ],
)
def test_malformed_files_are_refused_in_one_sentence(rte: Path, content: bytes, message: str) -> None:
    _break(rte, "dev.tsv", content)
    with pytest.raises(TaskError, match=message) as caught:
        load_task("rte", 10, 0, rte)
    assert "dev.tsv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_named(rte: Path) -> None:
    (rte / "glue" / "RTE" / "dev.tsv").unlink()
    with pytest.raises(TaskError, match=r"lacks the file dev\.tsv"):
        load_task("rte", 10, 0, rte)
    with pytest.raises(TaskError, match="nor a folder in it has a folder CB"):
        load_task("cb", 10, 0, rte)
    with pytest.raises(TaskError, match="does not exist"):
        load_task("cb", 10, 0, rte / "nowhere")
    with pytest.raises(TaskError, match="unknown task 'sst5'; known are rte"):
        load_task("sst5", 10, 0)


def test_json_lines(tmp_path: Path) -> None:
    row = {"premise": "p", "hypothesis": "h", "label": "neutral", "idx": 44}
    for name in ("train.jsonl", "val.jsonl"):
        write(tmp_path / "superglue" / "CB", name, [json.dumps(row), ""])
    data = load_task("cb", 10, 0, tmp_path)
    assert (data.train[0].example_id, data.train[0].label, len(data.train)) == ("44", 2, 1)
    for bad, message in (
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"premise": "p"}', "no column hypothesis"),
    ):
        write(tmp_path / "superglue" / "CB", "val.jsonl", [bad])
        with pytest.raises(TaskError, match=message):
            load_task("cb", 10, 0, tmp_path)


def test_a_label_that_training_never_shows(tmp_path: Path) -> None:
    row = {"premise": "p", "hypothesis": "h", "idx": 0}
    write(tmp_path / "CB", "train.jsonl", [json.dumps({**row, "label": "neutral"})])
    write(tmp_path / "CB", "val.jsonl", [json.dumps({**row, "label": "entailment"})])
    with pytest.raises(
        TaskError, match="'entailment' is in the validation split, but no training example has it"
    ):
        load_task("cb", 10, 0, tmp_path)


def _hosted(monkeypatch: pytest.MonkeyPatch, folder: Path, **columns: list[Any]) -> None:
    """Makes a folder the hub's snapshot of CB."""
    (folder / "cb").mkdir(exist_ok=True)
    for split in ("train", "validation"):
        pl.DataFrame(columns).write_parquet(folder / "cb" / f"{split}-00000-of-00001.parquet")
    monkeypatch.setattr(hub, "snapshot", lambda *_, **__: hub.Snapshot(folder, "a" * 40))


def test_the_hubs_parquet_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: dict[str, list[Any]] = {
        "premise": ['a "b', "c"],
        "hypothesis": ["d", "e"],
        "label": [2, 0],
        "idx": [7, 8],
    }
    _hosted(monkeypatch, tmp_path, **rows)
    data = load_task("cb", 10, 0)
    assert [(e.example_id, e.first, e.label) for e in data.train] == [("7", 'a "b', 2), ("8", "c", 0)]
    assert data.revision == "a" * 40
    for change, message in (
        ({"label": [-1, 0]}, "unknown label '-1'; accepted are entailment"),
        ({"label": ["neutral", "so"]}, "unknown label 'so'"),
        ({"premise": ["a", None]}, "must be text"),
        ({"idx": [0, 1], "premise": [], "hypothesis": [], "label": []}, "contains no examples"),
    ):
        changed = rows | change
        if not changed["label"]:
            changed["idx"] = []
        _hosted(monkeypatch, tmp_path, **changed)
        with pytest.raises(TaskError, match=message):
            load_task("cb", 10, 0)
    (tmp_path / "cb" / "train-00000-of-00001.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(TaskError, match="is not a Parquet file"):
        load_task("cb", 10, 0)


def test_bytes_that_are_not_utf_8_in_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _hosted(monkeypatch, tmp_path, premise=["a"], hypothesis=["b"], label=[0], idx=[0])
    texts = pa.Array.from_buffers(pa.binary(), 1, pa.array([b"\xff\xfe"]).buffers()).view(pa.string())
    table = pa.table({"premise": texts, "hypothesis": ["b"], "label": [0], "idx": [0]})
    pq.write_table(table, tmp_path / "cb" / "train-00000-of-00001.parquet")
    with pytest.raises(TaskError, match=r"train-00000-of-00001\.parquet is not"):
        load_task("cb", 10, 0)


def test_labels_in_another_order_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _hosted(monkeypatch, tmp_path, premise=["a"], hypothesis=["b"], label=[0], idx=[0])
    path = tmp_path / "cb" / "train-00000-of-00001.parquet"
    for names, accepted in (
        (["entailment", "contradiction", "neutral"], True),
        (["neutral", "contradiction", "entailment"], False),
    ):
        features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = pq.read_table(path).replace_schema_metadata({"huggingface": json.dumps(features)})
        pq.write_table(table, path)
        if accepted:
            assert load_task("cb", 10, 0).train[0].label == 0
        else:
            with pytest.raises(
                TaskError, match="its labels are neutral, contradiction, entailment; task cb needs"
            ):
                load_task("cb", 10, 0)


@pytest.mark.parametrize("place", ["RTE", "rte", "GLUE/RTE", "glue_data/rte"])
def test_archive_folders_are_matched_regardless_of_case(place: str, tmp_path: Path) -> None:
    for name in ("train.tsv", "dev.tsv"):
        write(tmp_path / place, name, ["index\tsentence1\tsentence2\tlabel", "0\ta\tb\tentailment"])
    assert len(load_task("rte", 10, 0, tmp_path).train) == 1


def test_official_row_counts(real_data: Path) -> None:
    rte = load_task("rte", 10_000, 0, real_data)
    assert (len(rte.train), len(rte.validation)) == (2_490, 277)
    cb = load_task("cb", 10_000, 0, real_data)
    # Of the official 250 training examples the files there hold 64.
    assert (len(cb.train), len(cb.validation)) == (64, 56)
    assert any('"' in e.first for e in rte.train)


def test_a_task_that_is_only_in_files_asks_for_their_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "rte", replace(TASKS["rte"], hosted=None))
    with pytest.raises(TaskError, match=r"task rte is not on the hub: .* --data-dir"):
        load_task("rte", 4, 0)
    assert "--data-dir" in task_availability(TASKS["rte"]).problem
    assert task_availability(TASKS["tiny-rte"]).cached
