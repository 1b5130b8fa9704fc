"""A sample of the faults, once each; ``python -m tests.faults`` injects all of them many times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.faults import FAULTS
from tests.faults.harness import NO_SMALL_DISK, experiment, scratch, undisturbed

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


@pytest.fixture(scope="module")
def baseline(folder: Path) -> Path:
    undisturbed(folder / "baseline", folder)
    return folder / "baseline"


@pytest.mark.parametrize("name", ["driver killed", "disk full", "bits flipped"])
def test_a_fault_loses_and_changes_nothing(name: str, folder: Path, baseline: Path) -> None:
    outcome = experiment(FAULTS[name], 0, baseline, folder)
    if outcome.faults == [NO_SMALL_DISK]:
        pytest.skip(NO_SMALL_DISK)
    assert outcome.injected
    assert not outcome.faults, outcome.output
    assert outcome.different == 0
