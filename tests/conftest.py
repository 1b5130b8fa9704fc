"""Shared fixtures: tiny random models, and a recipe short enough for tests."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Nothing here may depend on, or change, what the user's caches and the network hold.
os.environ["LFREEZE_CACHE"] = tempfile.mkdtemp(prefix="lfreeze-tests-")
os.environ["HF_HOME"] = os.environ["LFREEZE_CACHE"] + "/hub"
os.environ["HF_HUB_OFFLINE"] = "1"
# As in a trial's own process; both are read when torch is imported.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

import pytest
import torch

from lfreeze.recipe import Recipe

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


# The modules that take longest, in this order; they start first, so that no worker ends with one of them.
LONGEST = (
    "reproduce/run/test_sweep.py",
    "reproduce/store/test_old_folders.py",
    "lfreeze/test_hub.py",
    "test_docs.py",
    "reproduce/run/test_worker.py",
    "reproduce/run/test_ray_session.py",
    "reproduce/run/test_foreign_arm.py",
    "lfreeze/test_callback.py",
    "reproduce/report/test_report.py",
    "reproduce/report/figures/test_registry.py",
    "reproduce/run/test_tune_compat.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(LONGEST)))


@pytest.fixture(autouse=True, scope="session")
def _process() -> Iterator[None]:
    torch.set_num_threads(1)
    yield
    shutil.rmtree(os.environ["LFREEZE_CACHE"], ignore_errors=True)


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
