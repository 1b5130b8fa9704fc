"""What `datasets` reads against the standard library's readers, and what neither may let pass."""

from __future__ import annotations

import csv
import json
import os
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lfreeze.data.tables import read_table
from lfreeze.data.tasks import TaskError
from tests.lfreeze.data.test_fingerprints import TEXTS

PIECES = (*TEXTS, "", ",", "\n", "\r\n", "\t", '"', " ", "a", "é", "-", "0.10")


def drawn_rows(without: str = "") -> list[list[str]]:
    """Three hundred rows of three texts; the last is never empty."""
    draws = random.Random(0)
    pieces = [piece for piece in PIECES if not set(piece) & set(without)]
    texts = [["".join(draws.choices(pieces, k=draws.randrange(4))) for _ in range(2)] for _ in range(300)]
    return [[*pair, draws.choice(("1", "x", "01", "NA"))] for pair in texts]


def columns(path: Path) -> list[list[str]]:
    table = read_table(path, "test", ("a", "b", "label"))
    return [list(row) for row in zip(*table.values.values(), strict=True)]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_as_another_program_writes_it(tmp_path: Path, quoting: int, end: str) -> None:
    # The standard library's writer leaves a carriage return without quotes where it does not end lines.
    rows = drawn_rows(without="\r" if end == "\n" else "")
    with (tmp_path / "a.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, quoting=quoting, lineterminator=end).writerows([["a", "b", "label"], *rows])
    assert columns(tmp_path / "a.csv") == rows


def test_tab_separated_values_have_no_quotes(tmp_path: Path) -> None:
    rows = drawn_rows(without="\t\n")
    lines = ["\t".join(row) for row in (["a", "b", "label"], *rows)]
    (tmp_path / "a.tsv").write_bytes("\r\n".join([*lines, "", ""]).encode())
    assert columns(tmp_path / "a.tsv") == rows


def test_json_lines_and_parquet(tmp_path: Path) -> None:
    rows = drawn_rows()
    records = [dict(zip(("a", "b", "label"), row, strict=True)) for row in rows]
    (tmp_path / "a.jsonl").write_text("\n\n".join(json.dumps(record) for record in records))
    assert columns(tmp_path / "a.jsonl") == rows
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet", row_group_size=100)
    assert columns(tmp_path / "a.parquet") == rows


def test_a_file_is_read_again_when_only_its_content_has_changed(tmp_path: Path) -> None:
    """The cache of `datasets` goes by the path and the time of change."""
    path = tmp_path / "a[*].csv"
    for text in ("one", "two"):
        path.write_text(f"a,b,label\n{text},y,z\n")
        os.utime(path, ns=(10**18, 10**18))
        assert columns(path) == [[text, "y", "z"]]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b'a,b,label\n"x\ny",1,2\nx,1\n', "line 4: 2 cells where the header has 3"),
        ("a.csv", b"a,b,label\nx,1,2,3\nx,1,2\n", "line 2: 4 cells where the header has 3"),
        ("a.csv", b"a,b,label\n\nx,1,2\nx,1,2,3\n", "line 4: 4 cells where the header has 3"),
        # Read without a complaint, this quote would join two examples.
        ("a.csv", b'a,b,label\nx,y,z\n"go,1,2\nshe "x",1,2\n', "line 3: ',' expected after '\"'"),
        ("a.csv", b'a,b,label\nx,y,z\n"go,1,2\n', "line 3: unexpected end of data"),
        ("a.csv", b"a,b,label\nx,y,z\n\n\xff,1,2\n", "line 4 is not UTF-8 text (byte 17)"),
        ("a.csv", b"a,b,label\nx,y\0,z\n", "line 2 is not UTF-8 text (byte 13 is NUL)"),
        ("a.csv", b"a,b,label\n", "contains no examples"),
        ("a.csv", b"", "contains no examples"),
        ("a.csv", b"a,b\nx,y\n", "no column label; it has a, b, test needs a, b, label"),
        ("a.csv", b"a,b,label,a\nx,y,z,w\n", "has 2 columns a, of which it may have one"),
        ("a.tsv", b'a\tb\tlabel\n"x\ny"\tb\tl\n', "line 2: 1 cells where the header has 3"),
        ("a.jsonl", b'{"a": "x"}\n\n{"a": "x" "b": 1}\n', "line 3: not JSON"),
        ("a.jsonl", b'{"a": "x"}{"a": "y"}\n', "line 1: not JSON (Extra data)"),
        ("a.json", b'[{"a": "x"}]', "line 1: not a JSON object"),
        ("a.json", b'{"a":\n"x"}\n', "line 1: not JSON"),
        ("a.parquet", b"PAR1", "is not a Parquet file"),
        ("a.txt", b"x", "ends in none of .csv, .tsv, .jsonl, .json, .parquet"),
        ("a.csv/b.csv", b"x", "is a folder: name a file"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    read = tmp_path / name.split("/")[0]
    with pytest.raises(TaskError) as caught:
        read_table(read, "test", ("a", "b", "label"))
    assert expected in str(caught.value)
    assert str(caught.value).startswith(str(read))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"none\.csv cannot be read \(No such file"):
        read_table(tmp_path / "none.csv", "test", ("a",))


def test_rows_after_a_quoted_line_break_have_the_lines_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'a,b,label\r\n"x\r\n\r\ny",1,2\r\n\r\nz,"3\n4",5\r\nw,6,7\r\n')
    table = read_table(path, "test", ("a", "b", "label"))
    assert [table.place(row).rsplit(" ", 1)[1] for row in range(3)] == ["2", "6", "8"]


def test_the_cache_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    (tmp_path / "a.csv").write_text("a\nb\n")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    # root, who runs the tests in a container, may write anywhere.
    monkeypatch.setattr(datasets.builder.DatasetBuilder, "download_and_prepare", refuse)
    with pytest.raises(TaskError, match=r"the cache of datasets is not writable .*: set HF_HOME"):
        read_table(tmp_path / "a.csv", "test", ("a",))


def test_a_file_whose_rows_share_a_long_text(tmp_path: Path) -> None:
    """A few kilobytes on disk, ten gigabytes in memory."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 10**4, pa.int32()), pa.array(["x" * (1 << 20)]))
    path = tmp_path / "a.parquet"
    table = pa.table({"a": texts, "label": [0] * 10**4})
    pq.write_table(table, path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 10_000
    with pytest.raises(
        TaskError, match=r"a.parquet holds 10,4\d\d,\d{3},\d{3} bytes, more than the 4,294,967,296"
    ):
        read_table(path, "test", ("a", "label"))


def test_a_file_of_many_equal_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lfreeze.data.tables.MOST_BYTES", 10 << 20)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": ["x"] * 10**6, "label": [0] * 10**6}), path, compression="zstd")
    assert path.stat().st_size < 20_000
    with pytest.raises(TaskError, match=r"a.parquet holds 16,\d{3},\d{3} bytes, more than the 10,485,760"):
        read_table(path, "test", ("a", "label"))


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    for name in ("a.csv", "a.tsv", "a.jsonl", "a.parquet"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(TaskError, match=r"cannot be read .it is a pipe or a device"):
            read_table(tmp_path / name, "test", ("a",))
