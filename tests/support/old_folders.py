"""Folders of earlier versions, and a program of a later one: a copy of this one with three edits."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import lfreeze
from reproduce.plan.inputs import find_inputs, trial_specs
from reproduce.plan.search_space import load_space
from reproduce.plan.spec import TrialSpec
from reproduce.store.schema import SCHEMA_VERSION

CODE = Path(lfreeze.__file__).parents[1]
DATA = Path(__file__).parents[1] / "data"
SWEPT = ("schema-1", "schema-2")
STRATEGIES = "ALL,LoRA,INT25,BOT50,TOP25,ADT-L50"
# The refusal of a file that a later version wrote.
NEWER = f"has schema version {SCHEMA_VERSION + 1}; this program reads versions up to {SCHEMA_VERSION}"
# File, the line that is replaced, and its replacement.
EDITS = (
    (
        "lfreeze/recipe.py",
        "    cpu_threads: int = 1\n",
        "    cpu_threads: int = 1\n"
        "    label_noise: float = dataclasses.field("
        f'default=0.0, metadata={{"introduced": 0.0, "since": {SCHEMA_VERSION + 1}}})\n',
    ),
    (
        "reproduce/store/trial_row.py",
        "    # by column: why it is null",
        '    energy_joules: Annotated[float | None, Column("Speed", unit="J", '
        f"since={SCHEMA_VERSION + 1})] = None\n"
        "    # by column: why it is null",
    ),
    (
        "reproduce/store/row_values.py",
        '        status="ok",\n',
        '        status="ok",\n        energy_joules=1.5,\n',
    ),
)
KIND = '''"""FIRST: freezes the layers nearest to the input, for a test."""

from lfreeze.kinds.bottom import Bottom
from lfreeze.strategy import register


@register
class First(Bottom):
    """Freezes what BOT freezes."""

    label = "FIRST"
    order = 900
'''


def copied(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA / name, tmp_path / name))


def reproduce(*arguments: str | Path, code: Path = CODE, expect: int = 0) -> str:
    """What a command of the program in ``code`` prints."""
    environment = {**os.environ, "PYTHONPATH": str(code), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "reproduce", *map(str, arguments)]
    completed = subprocess.run(
        command, capture_output=True, text=True, timeout=280, check=False, env=environment, cwd=code
    )
    assert completed.returncode == expect, completed.stdout + completed.stderr
    assert "Traceback" not in completed.stderr
    return completed.stdout + completed.stderr


def run(
    folder: Path, *arguments: str, strategies: str = STRATEGIES, seeds: str = "42", code: Path = CODE
) -> str:
    return reproduce(
        "run", "embedded", "--strategies", strategies, "--seeds", seeds, "--set", "steps=12", *arguments,
        # One worker: its imports cost more than the trials.
        "--max-concurrent", "1", "--artifacts", folder, code=code,
    )  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    """The trials' files by path."""
    paths = [
        path for table in ("trials", "steps", "predictions") for path in (folder / table).rglob("*.parquet")
    ]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def specs(strategies: str = STRATEGIES, **recipe: str) -> list[TrialSpec]:
    space = load_space(
        "embedded", {"strategies": strategies.split(","), "seeds": ["42"]}, {"steps": "12"} | recipe
    )
    return trial_specs(space, find_inputs(space))
