"""What is too large ends a command with one sentence, before any work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.program import Program

LONG = "a" * 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("run", "embedded", "--artifacts", LONG),
            "error: --artifacts 'a{76}... is no path of a file or folder",
        ),
        (
            ("run", "embedded", "--data-dir", LONG),
            "error: --data-dir 'a{76}... is no path of a file or folder",
        ),
        (("status", LONG), "error: folder 'a{76}... is no path of a file or folder"),
        (("publish", "x", "b/" * 2000), "error: out 'b/.* is no path of a file or folder: it is longer than"),
        (("plan", LONG), "error: unknown search space 'a{76}..."),
        (
            ("plan", "--model-path", f"tiny-gemma=/{LONG}"),
            "error: --model-path tiny-gemma = '/a{75}... is no path of a folder: a part",
        ),
        (
            ("plan", "--models", "~nobody-of-this-name/x"),
            "error: model '~nobody-of-this-name/x': the folder does",
        ),
        (("plan", "--strategies", "BOT٢٥"), "error: unknown strategy 'BOT٢٥'; accepted are"),
        (("plan", "--seeds", "٤٢"), "error: seeds '٤٢' are not whole numbers"),
        (("plan", "--set", "steps=1000000000000"), "error: steps = 1000000000000 is above 10,000,000"),
        (("plan", "--set", "cpu_threads=100000"), "error: cpu_threads = 100000 is above 1,024"),
        (("run", "--shard", f"1/{'9' * 5000}"), "error: --shard '1/9{74}... is not I/N"),
        (("run", "--gpus-per-trial", "9" * 5000), "error: --gpus-per-trial '9{76}... is not auto"),
    ],
)
def test_one_sentence(arguments: tuple[str, ...], message: str, reproduce: Program, tmp_path: Path) -> None:
    printed = reproduce(*arguments, cwd=tmp_path, expect=2)
    assert re.match(message.replace("...", r"\.\.\."), printed)
    assert len(printed) < 800
    assert not list(tmp_path.iterdir())
