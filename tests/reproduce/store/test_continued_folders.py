"""Folders that earlier versions wrote are continued, by this program and by a later one."""

from __future__ import annotations

from pathlib import Path

import pytest

from reproduce.store.artifacts import read_folder
from tests.support.old_folders import DATA, NEWER, SWEPT, contents, copied, run
from tests.support.program import Program


@pytest.mark.parametrize("name", SWEPT)
def test_a_finished_folder_has_nothing_to_run(name: str, program: Program, tmp_path: Path) -> None:
    folder = copied(name, tmp_path)
    before = contents(folder)
    for _ in range(2):
        assert "All 12 trials are finished already; nothing to run." in run(program, folder, "--no-report")
    assert contents(folder) == before
    assert len(read_folder(folder).listed) == 12


@pytest.mark.sweep
@pytest.mark.parametrize("name", SWEPT)
def test_a_folder_is_continued(
    name: str, version: str, program: Program, reproduce: Program, tmp_path: Path
) -> None:
    folder = copied(name, tmp_path)
    before = contents(folder)
    more = {"strategies": "ALL,BOT50" if version == "this" else "ALL,FIRST50", "seeds": "42,43"}
    # Once on Ray, which passes the later program's rows between processes; the engines write the same rows.
    engine = "ray" if (name, version) == (SWEPT[-1], "later") else "inline"
    output = run(program, folder, "--no-report", "--engine", engine, **more)
    n_new = 4 if version == "this" else 6
    assert f"8 trials, {8 - n_new} finished already, {n_new} to run" in output
    after = contents(folder)
    assert {path: after.get(path) for path in before} == before
    assert len(after) == len(before) + 3 * n_new
    assert f"{12 + n_new} done, 0 running, 0 failed, 0 missing" in program("status", folder)
    text = program("verify", folder, "--against", DATA / name, expect=1)
    # Two versions of the code in one folder are the only fault.
    assert [line.split(":")[0] for line in text.splitlines() if "FAILED" in line] == ["FAILED  image"]
    # With a report of both versions' trials.
    assert "nothing to run" in run(program, folder, **more)
    assert (folder / "report" / "report.html").is_file()
    if version == "later":
        _is_refused(reproduce, folder, n_new)


def _is_refused(program: Program, folder: Path, n_new: int) -> None:
    """Files of a later schema version are named by its number, and never overwritten."""
    before = contents(folder)
    status = program("status", folder, expect=1)
    assert status.count(NEWER) == n_new
    assert "12 done" in status
    arguments = ("--strategies", "ALL", "--seeds", "42,43", "--set", "steps=12", "--artifacts", folder)
    output = program("run", "embedded", *arguments, expect=2)
    assert NEWER in output
    assert contents(folder) == before
