"""Artifact folders of synthetic trials."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reproduce.report.synthetic import grid, write_rows

STRATEGIES = ("ALL", "LoRA", "INT33", "BOT25", "BOT75", "ADT-L50")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, two tasks, six strategies, three seeds; every device shared."""
    rows = grid(("tiny-gemma", "tiny-phi"), strategies=STRATEGIES, exclusive=False)
    return write_rows(tmp_path_factory.mktemp("trials"), rows)
