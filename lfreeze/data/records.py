"""The records of a text file and where they begin: what `datasets` does not check, and does not say.

CSV with quoted cells, tab-separated values in which a quote is just a character, and JSON Lines.
"""

from __future__ import annotations

import csv
import hashlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path

from lfreeze.data.tasks import TaskError
from lfreeze.json_text import JsonError, parse_json
from lfreeze.plain_files import read_plain

# Of a file; larger ones than those of any task are not what they should be.
MOST_BYTES = 4 << 30
# Texts in cells may be longer than the 128 KiB that the standard library's reader allows.
csv.field_size_limit(sys.maxsize)


def read_text(path: Path) -> tuple[str, str]:
    """A file's text and the hash of its content.

    Raises:
        TaskError: it cannot be read, or is not UTF-8.
    """
    content = read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TaskError(f"{path}, line {line} is not UTF-8 text (byte {error.start})") from None
    # UTF-16 without a byte-order mark is valid UTF-8 with a NUL in every other place.
    if "\0" in text:
        start = content.index(0)
        line = content.count(b"\n", 0, start) + 1
        raise TaskError(f"{path}, line {line} is not UTF-8 text (byte {start} is NUL)")
    return text, hashlib.sha256(content).hexdigest()


def unusable(text: str) -> str:
    """The first character that no tokenizer or file format has to accept; empty if there is none."""
    if text.isascii():
        return "the character NUL" if "\0" in text else ""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"U+{ord(text[error.start]):04X}, half of a surrogate pair"
    return "the character NUL" if "\0" in text else ""


def read_bytes(path: Path) -> bytes:
    try:
        return read_plain(path, MOST_BYTES)
    except OSError as error:
        raise TaskError(f"{path} cannot be read ({error.strerror})") from None


def ending(path: Path) -> str:
    return path.suffix.lower()


def empty_error(path: Path) -> TaskError:
    return TaskError(f"{path} contains no examples")


def records(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of a file's records, the header's first, each with the line on which it begins; blank lines are none.

    Raises:
        TaskError: a line of JSON Lines is no object, or a quote is not closed or not at the end of its cell.
    """
    if ending(path) == ".csv":
        yield from _quoted_records(path, text)
        return
    # Only line feeds end lines: texts may contain other characters that str.splitlines splits at.
    for number, line in enumerate(text.split("\n"), start=1):
        if ending(path) == ".tsv":
            if line != "\r" and line.strip(" "):
                yield number, line.removesuffix("\r").split("\t")
            continue
        if not line.strip():
            continue
        try:
            row = parse_json(line, unique_keys=True)
        except JsonError as error:
            raise TaskError(f"{path}, line {number}: {error}") from None
        if not isinstance(row, dict):
            raise TaskError(f"{path}, line {number}: not a JSON object")
        for key, value in row.items():
            if isinstance(value, str) and (fault := unusable(value)):
                raise TaskError(
                    f"{path}, line {number}: {key} contains {fault}; texts consist of Unicode characters"
                )
        yield number, list(row)


def _quoted_records(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    reader, start = csv.reader(io.StringIO(text, newline=""), strict=True), 1
    try:
        for cells in reader:
            if cells and not (len(cells) == 1 and cells[0].isspace()):
                yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise TaskError(
            f"{path}, line {start}: {error}; a quote inside a quoted cell is written twice"
        ) from None


def require_equal_cells(path: Path, text: str) -> None:
    """Refuse a record with more or fewer cells than the header, and a file without records."""
    (_, header), *rows = records(path, text)
    for line, cells in rows:
        if len(cells) != len(header):
            raise TaskError(f"{path}, line {line}: {len(cells)} cells where the header has {len(header)}")
    if not rows:
        raise empty_error(path)
