"""Shell completion: what bash offers with the script that the documentation installs, and the other shells' scripts."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.program import CODE


@pytest.fixture
def program(tmp_path: Path) -> dict[str, str]:
    """An environment in which ``reproduce`` is a command."""
    script = tmp_path / "bin" / "reproduce"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m reproduce "$@"\n')
    script.chmod(0o755)
    path = f"{script.parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(CODE)}


def run(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=200, check=True
    ).stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["reproduce", "ver"], ["verify"]),
        (["reproduce", "plan", "embedded-f"], ["embedded-full"]),
        (["reproduce", "doctor", "--gpu-"], ["--gpu-memory"]),
        (["reproduce", "run", "--engine", ""], ["ray", "inline"]),
    ],
)
def test_bash_offers(words: list[str], offered: list[str], program: dict[str, str]) -> None:
    line = " ".join(map(shlex.quote, words))
    script = (
        'eval "$(_REPRODUCE_COMPLETE=bash_source reproduce)"\n'
        f"COMP_WORDS=({line}) COMP_CWORD={len(words) - 1} COMP_LINE={shlex.quote(line)}\n"
        # Bash calls it so; `compopt` is for the line that is being edited.
        "compopt() { :; }\n"
        f"_reproduce_completion reproduce {shlex.quote(words[-1])} {shlex.quote(words[-2])}\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    assert run(["bash", "--norc", "-c", script], program).split() == offered


@pytest.mark.parametrize(
    ("shell", "function"), [("zsh", "compdef _reproduce_completion"), ("fish", "complete --no-files")]
)
def test_the_other_shells_get_their_scripts(shell: str, function: str, program: dict[str, str]) -> None:
    script = run(["reproduce"], program | {"_REPRODUCE_COMPLETE": f"{shell}_source"})
    assert function in script
    assert f"_REPRODUCE_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n", "-c", script], check=True, timeout=60)
