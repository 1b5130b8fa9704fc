"""The program that reads old folders: this one, and a later one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.old_folders import EDITS, KIND
from tests.support.program import CODE, Program


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This program with one more recipe value, column and kind."""
    code = tmp_path_factory.mktemp("later")
    for package in ("lfreeze", "reproduce", "search_spaces", "artifacts/reference"):
        shutil.copytree(CODE / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, old, new in EDITS:
        text = (code / name).read_text("utf-8")
        assert text.count(old) == 1, (name, old)
        (code / name).write_text(text.replace(old, new), "utf-8")
    (code / "lfreeze" / "kinds" / "first.py").write_text(KIND, "utf-8")
    return code


@pytest.fixture(scope="module")
def later_program(later: Path) -> Iterator[Program]:
    with Program(later) as program:
        yield program


@pytest.fixture(params=["this", "later"])
def version(request: pytest.FixtureRequest) -> str:
    """Which program: this one, or a later one."""
    return str(request.param)


@pytest.fixture
def program(version: str, request: pytest.FixtureRequest) -> Program:
    started: Program = request.getfixturevalue("reproduce" if version == "this" else "later_program")
    return started
