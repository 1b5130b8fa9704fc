"""The same texts in the same order, whatever reads them: run ids contain these hashes."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lfreeze import hub
from lfreeze.data.loading import load_task
from lfreeze.data.tasks import TASKS, Task
from lfreeze.tiny.tasks import TINY_TASKS

# What readers of such files like to change.
TEXTS = (
    'She said "go',
    '"quoted"',
    '""',
    "it's 1,5",
    " a ",
    "NA",
    "null",
    "nan",
    "3.0",
    "007",
    "1e5",
    "True",
    "a\u2028b\x0bc\x85\re\x1d",
    "\ufeffé \U0001f600",
    "# no comment",
    "\\n \\t",
    "2020-01-01",
    "'",
)
# Task, source, fingerprint and content hash of the files below, as the first readers of such files gave them.
KNOWN = (
    ("rte", "archive", "502994d40026cc07", "86e647e4b054d931"),
    ("rte", "hosted", "1b162926e9b0ca18", "8bd7035ae77d52bb"),
    ("qnli", "archive", "502994d40026cc07", "86e647e4b054d931"),
    ("qnli", "hosted", "1b162926e9b0ca18", "8bd7035ae77d52bb"),
    ("wnli", "archive", "e44a782c2342bda2", "18b766e18d476d71"),
    ("wnli", "hosted", "fdf83965c26c995e", "dd51348f17a665a6"),
    ("mnli", "archive", "c350b587cb6af97a", "e92ebc80740d4bae"),
    ("mnli", "hosted", "7caa72a2732b87bc", "1125b3bd95cefedc"),
    ("cb", "archive", "33ba01320cc2ecf7", "1b9a2f1d8c1021ae"),
    ("cb", "hosted", "5bac6a204c44a522", "8e6d561ad5c4e5bc"),
)


def rows_of(task: Task) -> list[tuple[str, str, int]]:
    n = len(TEXTS)
    return [(TEXTS[i % n], TEXTS[(5 * i + 1) % n], i % len(task.labels)) for i in range(3 * n)]


def write_archive(task: Task, folder: Path) -> None:
    assert task.archive is not None
    (folder / task.archive.folder).mkdir()
    columns = ("index", *task.fields, task.archive.label_field)
    for k, name in enumerate(task.archive.files):
        rows = [(str(9 * i), a, b, task.labels[label]) for i, (a, b, label) in enumerate(rows_of(task)[k:])]
        if name.endswith(".jsonl"):
            lines = [json.dumps(dict(zip(("idx", *columns[1:]), row, strict=True))) for row in rows]
            text = "\n\n".join(lines)
        else:
            text = "\r\n".join("\t".join(row) for row in (columns, *rows)) + "\n\n"
        (folder / task.archive.folder / name).write_bytes(text.encode())


def write_hosted(task: Task, folder: Path) -> None:
    assert task.hosted is not None
    (folder / task.hosted.config).mkdir()
    first, second = task.hosted.fields
    for k, split in enumerate(task.hosted.splits):
        texts, others, labels = zip(*rows_of(task)[k:], strict=True)
        for part, places in enumerate((slice(0, 20), slice(20, None))):
            table = pa.table(
                {
                    first: texts[places],
                    second: others[places],
                    "label": labels[places],
                    "idx": pa.array(range(len(texts))[places], pa.int32()),
                }
            )
            pq.write_table(table, folder / task.hosted.config / f"{split}-0000{part}-of-00002.parquet")


def hashes(name: str, folder: Path | None = None) -> tuple[str, str]:
    data = load_task(name, 40, 7, folder)
    return data.fingerprint[:16], data.content_hash[:16]


def written(name: str, source: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The hashes of a task's generated files."""
    if source == "archive":
        write_archive(TASKS[name], folder)
        return hashes(name, folder)
    write_hosted(TASKS[name], folder)
    monkeypatch.setattr(hub, "snapshot", lambda *_, **__: hub.Snapshot(folder, "a" * 40))
    return hashes(name)


@pytest.mark.parametrize(("name", "source", "fingerprint", "content"), KNOWN)
def test_files_with_difficult_texts(
    name: str, source: str, fingerprint: str, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert written(name, source, tmp_path, monkeypatch) == (fingerprint, content)


def test_the_benchmarks_own_files(real_data: Path) -> None:
    assert hashes("rte", real_data) == ("cf06b063db79acad", "b502c92fb1415bdc")
    assert hashes("cb", real_data) == ("b0ea9666fa6611b2", "4caa29f46272f9ee")


def test_generated_tasks() -> None:
    assert {name: load_task(name, 40, 7).fingerprint[:16] for name in TINY_TASKS} == {
        "tiny-rte": "45c3d03c236e6169",
        "tiny-qnli": "e9963034a59d102e",
        "tiny-wnli": "488b82542747d886",
        "tiny-mnli": "cbaaa86f72a70356",
        "tiny-cb": "7cb8ee79fa23de01",
        "tiny-sst2": "6234dbac15a968f9",
        "tiny-mrpc": "003759c81a9a9ffe",
        "tiny-qqp": "f5fc31c0e3294223",
        "tiny-cola": "b576cdf3b4d3c601",
    }
