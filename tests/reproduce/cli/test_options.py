"""How a command ends."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
import click
from lfreeze.errors import InputError
from reproduce.cli.options import Commands
from reproduce.process import end_on_signals

@click.group(cls=Commands)
def main(): pass

@main.command()
def wait():
    end_on_signals()
    try:
        os.kill(os.getpid(), int(sys.argv[2]))
    except KeyboardInterrupt:
        exec(os.environ["AFTER"])

main(sys.argv[1:2])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "after",
    ["raise", "raise RuntimeError('lost')", "raise InputError('lost')", "sys.exit(1)", "sys.exit(0)", "pass"],
)
def test_a_signal_decides_the_status_whatever_fails_after_it(
    after: str, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFTER", after)
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, "wait", str(int(number))], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 128 + number, ended.stderr
    assert ended.stderr == (
        f"interrupted ({number.name}): finished trials are kept, and the same command continues.\n"
    )
