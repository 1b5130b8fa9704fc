"""Files that are none, and names that can be none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lfreeze.plain_files import is_file, local_folder, path_fault, read_plain


def test_only_plain_files_of_a_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_plain(tmp_path / "link", 5) == b"12345"
    with pytest.raises(OSError, match="it has 5 bytes, more than 4"):
        read_plain(tmp_path / "file", 4)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="it is a pipe or a device"):
            read_plain(path, 1000)
    with pytest.raises(IsADirectoryError):
        read_plain(tmp_path, 1000)
    with pytest.raises(FileNotFoundError):
        read_plain(tmp_path / "none", 1000)


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for text in ("a" * 256, "é" * 128, "a/" * 2000, "a\0b", "~nobody-of-this-name/x", str(tmp_path / "loop")):
        assert not is_file(Path(text))
        assert local_folder(text) is None
    assert local_folder(str(tmp_path)) == tmp_path.resolve()
    assert path_fault(Path("é" * 128)) == "a part of it is longer than 255 bytes"
    assert path_fault(Path("a/" * 2000)) == "it is longer than 3,000 bytes"
    assert path_fault(Path("é" * 127, "b")) == ""
