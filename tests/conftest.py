"""Shared fixtures: tiny random models, and a recipe short enough for tests."""

from __future__ import annotations

import dataclasses
import gc
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

# Nothing here may depend on, or change, what the user's caches and the network hold.
os.environ["LFREEZE_CACHE"] = tempfile.mkdtemp(prefix="lfreeze-tests-")
os.environ["HF_HOME"] = os.environ["LFREEZE_CACHE"] + "/hub"
os.environ["HF_HUB_OFFLINE"] = "1"
# As in a trial's own process; both are read when torch is imported.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
# Commands and Ray's workers, hundreds of processes, otherwise compile this project's code once each.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import pytest
import torch

from lfreeze.recipe import Recipe
from tests.support.program import CODE, Program

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With pytest-xdist, run the modules that start Ray first, since they take the longest."""
    if hasattr(config, "workerinput"):
        sweeps = Counter(item.path for item in items if item.get_closest_marker("sweep"))
        items.sort(key=lambda item: -sweeps[item.path])


def pytest_collection_finish() -> None:
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def _process() -> Iterator[None]:
    torch.set_num_threads(1)
    yield
    shutil.rmtree(os.environ["LFREEZE_CACHE"], ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def _imports_are_not_scanned() -> None:
    """A collection of garbage in a process with torch, transformers and pytest takes a quarter of a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def reproduce() -> Iterator[Program]:
    """The command, in one process for all calls of a session, or of a process of pytest-xdist."""
    with Program(CODE) as program:
        yield program


@pytest.fixture
def recipe() -> Recipe:
    """The paper's recipe with a learning rate and length for tiny models, over a few steps."""
    return Recipe(
        batch_size=8,
        max_length=64,
        steps=12,
        learning_rate=1e-3,
        schedule="cosine",
        lora_rank=4,
        lora_alpha=16,
        lora_dropout=0.0,
        max_train_examples=200,
        probe_steps=3,
        precision="fp32",
        timing_warmup_steps=2,
    )


@pytest.fixture
def real_data() -> Path:
    """The benchmarks' own files, where this machine has them."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the benchmarks' own files are not beside this checkout")
    return SHARED_DATA


def with_values(recipe: Recipe, **values: object) -> Recipe:
    return dataclasses.replace(recipe, **values)  # type: ignore[arg-type]
