"""The columns of one file, read by `datasets`: CSV, tab-separated values, JSON Lines or Parquet.

`datasets` keeps what it has read in its cache, here under the hash of the file's content. What it lets pass, such
as a row with too few cells, is refused here, and so is what it refuses without a line number: only then is
the file read once more, to name the line.
"""

from __future__ import annotations

import csv
import errno
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lfreeze.data.records import (
    MOST_BYTES,
    empty_error,
    ending,
    read_bytes,
    read_text,
    records,
    require_equal_cells,
)
from lfreeze.data.tasks import TaskError
from lfreeze.errors import first_line
from lfreeze.hf_logging import silence_datasets

_BYTES_PER_VALUE = 8
ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")


@dataclass(frozen=True)
class Table:
    """Columns of a file, of equal length.

    Attributes:
        columns: the names of all columns, in order.
        values: the columns that were asked for, by name.
        metadata: of a Parquet file's schema.
        first: the number of the first row: its line in a file of one row a line.
    """

    path: Path
    columns: tuple[str, ...]
    values: Mapping[str, Sequence[Any]]
    metadata: Mapping[bytes, bytes]
    first: int

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def place(self, row: int) -> str:
        """The file and the line on which a row begins, for messages; rows count from 0."""
        if ending(self.path) == ".parquet":
            return f"{self.path}, row {row + 1}"
        lines = [number for number, _ in records(self.path, read_text(self.path)[0])]
        return f"{self.path}, line {lines[row + self.first - 1]}"


def read_table(path: Path, reader: str, required: Sequence[str], optional: Sequence[str] = ()) -> Table:
    """Read columns of a file.

    Args:
        reader: what needs the columns, such as ``"task rte"``, for messages.
        optional: columns to read where the file has them.

    Raises:
        TaskError: the file is missing, malformed or not UTF-8, has no rows, has another ending than ``ENDINGS``,
            lacks a required column or has a column twice; or `datasets` is not installed.
    """
    accepted = ", ".join(ENDINGS)
    if path.is_dir():
        raise TaskError(f"{path} is a folder: name a file that ends in one of {accepted}")
    if ending(path) not in ENDINGS:
        raise TaskError(f"{path} ends in none of {accepted}, the formats that can be read")
    if find_spec("datasets") is None:
        raise TaskError(
            f"reading {path.name} needs the package datasets, which is not installed: pip install 'lfreeze[reproduce]'"
        )
    read = {".parquet": _parquet, ".jsonl": _json, ".json": _json}.get(ending(path), _delimited)
    return read(path, reader, required, optional)


def _delimited(path: Path, reader: str, required: Sequence[str], optional: Sequence[str]) -> Table:
    """A CSV file with quoted fields, or a tab-separated one in which a quote is just a character."""
    text, digest = read_text(path)
    columns = next((cells for _, cells in records(path, text)), None)
    if columns is None:
        raise empty_error(path)
    chosen = _chosen(path, reader, columns, required, optional)
    plain = ending(path) == ".tsv"
    places = [str(place) for place in range(len(columns))]
    # Every cell is a text, whatever it looks like.
    options = {"names": places, "header": 0, "index_col": False, "na_filter": False}
    if plain:
        # A text may contain a carriage return.
        options |= {"sep": "\t", "quoting": csv.QUOTE_NONE, "lineterminator": "\n"}
    try:
        values = _load("csv", path, digest, [(place, "string") for place in places], **options)
    except _UnreadableError as error:
        require_equal_cells(path, text)
        raise TaskError(f"{path} cannot be read ({error})") from None
    # Too few cells end in empty ones, and rows that an unbalanced quote has joined contain a line break.
    joined = not plain and any("\n" in cell or "\r" in cell for column in values.values() for cell in column)
    if joined or "" in values[places[-1]]:
        require_equal_cells(path, text)
    if plain and "\r" in text:
        values = _without_carriage_returns(values)
    return Table(path, tuple(columns), {name: values[str(columns.index(name))] for name in chosen}, {}, 2)


def _without_carriage_returns(values: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The cells without the carriage returns of line ends; lines that have nothing else are left out."""
    first, *_, last = values.values()
    kept = [row for row, (a, b) in enumerate(zip(first, last, strict=True)) if (a, b) != ("\r", "")]
    stripped = {name: [column[row] for row in kept] for name, column in values.items()}
    stripped[list(values)[-1]] = [last[row].removesuffix("\r") for row in kept]
    return stripped


def _json(path: Path, reader: str, required: Sequence[str], optional: Sequence[str]) -> Table:
    text, digest = read_text(path)
    lines = sum(1 for line in text.split("\n") if line.strip())
    if not lines:
        raise empty_error(path)
    try:
        values = _load("json", path, digest, parse_agent_traces=False)
        if text.lstrip().startswith("[") or lines != len(next(iter(values.values()), ())):
            raise _UnreadableError("it is not one JSON object a line")
    except _UnreadableError as error:
        for _ in records(path, text):
            pass
        raise TaskError(f"{path} cannot be read ({error})") from None
    chosen = _chosen(path, reader, list(values), required, optional)
    return Table(path, tuple(values), {name: values[name] for name in chosen}, {}, 1)


def _parquet(path: Path, reader: str, required: Sequence[str], optional: Sequence[str]) -> Table:
    import pyarrow.parquet

    digest = hashlib.sha256(read_bytes(path)).hexdigest()
    try:
        metadata = pyarrow.parquet.read_metadata(path)
        schema = metadata.schema.to_arrow_schema()
        columns = list(schema.names)
        chosen = _chosen(path, reader, columns, required, optional)
        if not metadata.num_rows:
            raise empty_error(path)
        _require_size(path, metadata, chosen)
        types = [(name, schema.field(name).type) for name in chosen]
        values = _load("parquet", path, digest, types, columns=chosen)
    except (OSError, pyarrow.ArrowException, _UnreadableError) as error:
        raise TaskError(f"{path} is not a Parquet file that can be read ({first_line(error)})") from None
    return Table(path, tuple(columns), values, schema.metadata or {}, 1)


def _require_size(path: Path, metadata: Any, columns: Sequence[str]) -> None:
    """Refuse a file that is small on disk and takes gigabytes in memory, before it is read."""
    from pyarrow import compute, parquet

    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    chunks = [group.column(place) for group in groups for place in range(group.num_columns)]
    chunks = [chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns]
    n = sum(chunk.num_values for chunk in chunks)
    size = sum(chunk.total_uncompressed_size for chunk in chunks) + n * _BYTES_PER_VALUE
    texts = [
        name
        for name in columns
        if str(metadata.schema.to_arrow_schema().field(name).type) in ("string", "large_string")
    ]
    # A text that many rows share is stored once and read once for each.
    if size <= MOST_BYTES < size * n and texts:
        for batch in parquet.ParquetFile(path, read_dictionary=texts).iter_batches(columns=texts):
            for column in batch.columns:
                lengths = compute.binary_length(column.dictionary).take(column.indices)
                size += compute.sum(lengths).as_py() or 0
    if size > MOST_BYTES:
        raise TaskError(f"{path} holds {size:,} bytes, more than the {MOST_BYTES:,} that are read")


def _chosen(
    path: Path, reader: str, columns: Sequence[str], required: Sequence[str], optional: Sequence[str]
) -> list[str]:
    """The columns to read, each of which the file has once."""
    missing = [name for name in required if name not in columns]
    if missing:
        raise TaskError(
            f"{path}: no column {', '.join(missing)}; it has {', '.join(columns)}, {reader} needs {', '.join(required)}"
        )
    chosen = [*required, *(name for name in optional if name in columns and name not in required)]
    for name in chosen:
        if columns.count(name) > 1:
            raise TaskError(f"{path} has {columns.count(name)} columns {name}, of which it may have one")
    return chosen


class _UnreadableError(Exception):
    """`datasets` cannot read a file; the message is its own."""


def _load(
    kind: str,
    path: Path,
    digest: str,
    types: Sequence[tuple[str, Any]] | None = None,
    **options: Any,
) -> dict[str, list[Any]]:
    """The columns of a file by name, from the cache of `datasets` or read and added to it.

    Args:
        kind: the format, as ``Dataset.from_csv`` is named by it.
        digest: the hash of the content, which the cache is asked for: a time of change can be the same for two.
        types: the columns with their types in Arrow; as they are found in the file by default.

    Raises:
        TaskError: the cache cannot be written.
        _UnreadableError: the file cannot be read.
    """
    import datasets
    import pyarrow

    if types is not None:
        options["features"] = datasets.Features.from_arrow_schema(pyarrow.schema(types))
    # Made by hand, since a path would be taken for a pattern.
    files = datasets.data_files.DataFilesList([str(path)], [(digest,)])
    source = datasets.data_files.DataFilesDict({"train": files})
    with silence_datasets():
        try:
            read = getattr(datasets.Dataset, f"from_{kind}")(source, split="train", **options)
            read.data.table.validate(full=True)
            return {name: list(values) for name, values in read[:].items()}
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.ENOSPC, errno.EROFS):
                raise _UnreadableError(first_line(error)) from None
            raise TaskError(
                f"the cache of datasets is not writable ({error.strerror}): set HF_HOME to another folder"
            ) from None
        # Each format fails with types of its own.
        except Exception as error:
            raise _UnreadableError(first_line(error.__cause__ or error)) from None
