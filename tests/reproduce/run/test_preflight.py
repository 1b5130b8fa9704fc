"""The temporary folder of Ray: its path must leave room for the names of Ray's sockets."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from lfreeze.errors import InputError
from reproduce.cli.app import main
from reproduce.run.preflight import SOCKET_PATH_BYTES, require_short_paths

NAME = f"/ray/session_2026-12-31_23-59-59_999999_{os.getpid()}/sockets/plasma_store"
LONGEST = SOCKET_PATH_BYTES - len(NAME)


def test_the_limit_is_the_systems() -> None:
    for length, fits in ((SOCKET_PATH_BYTES, True), (SOCKET_PATH_BYTES + 1, False)):
        path = Path("/tmp") / "".ljust(length - len("/tmp/"), "x")
        with socket.socket(socket.AF_UNIX) as server:
            try:
                server.bind(str(path))
                bound = True
            except OSError:
                bound = False
            path.unlink(missing_ok=True)
        assert bound == fits


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_path_may_have_as_many_bytes_as_are_left(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(variable, "/tmp/".ljust(LONGEST, "x"))
    require_short_paths()
    # One letter more, of two bytes.
    monkeypatch.setenv(variable, "/tmp/".ljust(LONGEST - 1, "x") + "é")
    with pytest.raises(
        InputError,
        match=rf"has a path of {LONGEST + 1} bytes, .* one of at most {LONGEST}: set RAY_TMPDIR=/tmp",
    ):
        require_short_paths()


def test_rays_own_variable_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp/".ljust(200, "x"))
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    require_short_paths()


def test_a_run_on_ray_is_refused_and_one_without_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp/".ljust(200, "x"))
    arguments = ["run", "--artifacts", str(tmp_path / "a")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "200 bytes" in result.output
    assert "set RAY_TMPDIR=/tmp or another short folder, or use --engine inline" in " ".join(
        result.output.split()
    )
    # The next check, which needs nothing of the temporary folder.
    result = CliRunner().invoke(main, [*arguments, "--engine", "inline", "--tasks", "none"])
    assert "'none'" in result.output
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("option", "name"),
    [
        (("--address", "auto"), "--address"),
        (("--dashboard",), "--dashboard"),
        (("--max-concurrent", "2"), "--max-concurrent 2"),
        (("--gpus-per-trial", "2"), "--gpus-per-trial 2"),
    ],
)
def test_what_only_ray_has_is_refused_without_it(option: tuple[str, ...], name: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        main, ["run", "--engine", "inline", *option, "--artifacts", str(tmp_path / "a")]
    )
    assert result.exit_code == 2
    sentence = " ".join(result.output.split())
    assert sentence.startswith(f"error: {name} needs --engine ray: ")
    assert not (tmp_path / "a").exists()
