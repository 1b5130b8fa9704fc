"""Files that a sweep keeps beside its results: damaged, lost, or folders, they cost no result."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reproduce.store.artifacts import read_folder
from reproduce.store.folder_lock import exclusive_writer, is_locked
from tests.support.old_folders import contents, copied, run
from tests.support.program import Program

DAMAGE = {
    "list": b"[1, 2]",
    "number": b"7",
    "null": b"null",
    "not UTF-8": b"\xff\xfe{",
    "empty": b"",
    "half": b'{"running": ["a',
}


@pytest.mark.parametrize("content", [*DAMAGE, "folder"])
def test_a_damaged_note_of_running_trials_is_ignored(content: str, tmp_path: Path) -> None:
    folder = copied("schema-2", tmp_path)
    path = folder / "running.json"
    path.unlink(missing_ok=True)
    if content == "folder":
        path.mkdir()
    else:
        path.write_bytes(DAMAGE[content])
    with exclusive_writer(folder):
        state = read_folder(folder)
    assert state.live
    assert state.running == ()
    assert state.done == 12


@pytest.mark.parametrize("name", [".lock", "inputs.lock.toml", "sweep.json"])
def test_a_folder_in_the_place_of_a_file_is_named(reproduce: Program, name: str, tmp_path: Path) -> None:
    folder = copied("schema-2", tmp_path)
    before = contents(folder)
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    output = run(refusing(reproduce), folder, "--no-report")
    assert f"{folder / name} is a folder" in output
    assert "remove it" in output
    (folder / name).rmdir()
    assert "All 12 trials are finished already" in run(reproduce, folder, "--no-report")
    assert contents(folder) == before


def refusing(program: Program) -> Callable[..., str]:
    return lambda *arguments: program(*arguments, expect=2)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"version = [", b"version = 1\nmodels = 3"])
def test_a_damaged_input_lock_is_replaced_on_request(
    reproduce: Program, content: bytes, tmp_path: Path
) -> None:
    folder = copied("schema-2", tmp_path)
    sound = (folder / "inputs.lock.toml").read_text() if (folder / "inputs.lock.toml").is_file() else None
    (folder / "inputs.lock.toml").write_bytes(content)
    assert "--accept-inputs replaces it" in run(refusing(reproduce), folder, "--no-report")
    assert "All 12 trials are finished" in run(reproduce, folder, "--no-report", "--accept-inputs")
    replaced = (folder / "inputs.lock.toml").read_text()
    assert sound is None or replaced.count("hash") >= sound.count("hash")
    assert "All 12 trials are finished" in run(reproduce, folder, "--no-report")


@pytest.mark.parametrize("folder_name", ["schema-1", "schema-2"])
@pytest.mark.parametrize("damage", ["lost", "half", "list", "not UTF-8"])
def test_the_list_of_trials_is_rebuilt_from_the_rows(
    reproduce: Program, folder_name: str, damage: str, tmp_path: Path
) -> None:
    folder = copied(folder_name, tmp_path)
    before, manifest = contents(folder), json.loads((folder / "sweep.json").read_text())
    (folder / "sweep.json").unlink()
    if damage != "lost":
        (folder / "sweep.json").write_bytes(DAMAGE[damage])
    else:
        assert "`reproduce run` of its space rebuilds it" in reproduce("status", folder, expect=2)
    output = run(reproduce, folder, "--no-report")
    assert f"rebuilt from the rows of {len(manifest['trials'])} trials" in output
    assert "All 12 trials are finished already" in output
    assert contents(folder) == before
    rebuilt = json.loads((folder / "sweep.json").read_text())
    key = ("model", "task", "strategy", "seed", "run_id")
    listed = [
        {tuple(entry[name] for name in key) for entry in each["trials"]} for each in (manifest, rebuilt)
    ]
    assert listed[0] == listed[1]
    assert rebuilt["inputs"] == manifest["inputs"]
    assert {name: rebuilt["recipe"][name] for name in manifest["recipe"]} == manifest["recipe"]
    assert "rebuilt" not in run(reproduce, folder, "--no-report")


def test_what_a_sweep_leaves_that_could_not_begin_is_accepted(reproduce: Program, tmp_path: Path) -> None:
    """As where the disk was full: empty folders, and the temporary name of a file."""
    folder = copied("schema-2", tmp_path)
    shutil.copytree(folder, tmp_path / "whole")
    for name in ("trials", "steps", "predictions"):
        shutil.rmtree(folder / name)
    (folder / "sweep.json").rename(folder / ".sweep.json.0123.tmp")
    (folder / "trials").mkdir()
    with exclusive_writer(folder):
        pass
    assert not list(folder.glob(".*.tmp"))
    (folder / "note.txt").write_text("mine")
    assert "was not made by a sweep" in run(refusing(reproduce), folder, "--no-report")
    (folder / "note.txt").unlink()
    (folder / "trials" / "note.txt").write_text("mine")
    assert "was not made by a sweep" in run(refusing(reproduce), folder, "--no-report")
    (folder / "trials" / "note.txt").unlink()
    from reproduce.store.artifacts import check_folder

    check_folder(folder)


def _look(folder: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        is_locked(folder)


def test_a_reader_is_never_taken_for_another_sweep(tmp_path: Path) -> None:
    with exclusive_writer(tmp_path):
        pass
    reader = multiprocessing.get_context("spawn").Process(target=_look, args=(tmp_path, 60.0))
    reader.start()
    try:
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            with exclusive_writer(tmp_path):
                pass
    finally:
        reader.kill()
        reader.join()
