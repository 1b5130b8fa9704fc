"""Folders of earlier versions, and a program of a later one: a copy of this one with three edits."""

from __future__ import annotations

import shutil
from pathlib import Path

from reproduce.plan.inputs import find_inputs, trial_specs
from reproduce.plan.search_space import load_space
from reproduce.plan.spec import TrialSpec
from reproduce.store.schema import SCHEMA_VERSION
from tests.support.program import Program

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


def run(
    program: Program,
    folder: Path,
    *arguments: str,
    engine: str = "ray",
    strategies: str = STRATEGIES,
    seeds: str = "42",
) -> str:
    return program(
        "run", "embedded", "--strategies", strategies, "--seeds", seeds, "--set", "steps=12", "--engine", engine, *arguments,
        # One worker: its imports cost more than the trials.
        "--max-concurrent", "1", "--artifacts", folder,
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
