"""Predicted lengths and batches against the batches that trials train on."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from lfreeze.data.encoding import EncodedTask
from lfreeze.data.encoding_cache import encoded
from lfreeze.data.loading import load_task
from lfreeze.data.tasks import TASKS, get_task
from lfreeze.models.catalog import find_checkpoint, get_model
from lfreeze.training.batches import training_batches
from reproduce.plan.cost import GIB, assumptions, plan_space
from reproduce.plan.lengths import batch_work, known_lengths
from reproduce.plan.search_space import load_space

RECIPE = replace(load_space("embedded").recipe, max_length=64, steps=100)
LAYOUTS = [("longest", 0), ("longest", 8), ("bucketed", 0), ("bucketed", 4), ("packed", 0), ("max_length", 8)]


@pytest.fixture(scope="module", params=["tiny-wnli", "tiny-cb", "tiny-rte", "tiny-qqp", "tiny-cola"])
def texts(request: pytest.FixtureRequest) -> tuple[str, EncodedTask]:
    data = load_task(request.param, 3200, 0)
    return request.param, encoded(data, find_checkpoint(get_model("tiny-gemma")), 64, "auto")


@pytest.mark.parametrize(("padding", "micro"), LAYOUTS)
def test_batches_compute_what_is_predicted(texts: tuple[str, EncodedTask], padding: str, micro: int) -> None:
    """Computed tokens within 5 %, the largest micro-batch within 12 %, from typical and from known lengths."""
    name, data = texts
    recipe = replace(RECIPE, padding=padding, micro_batch_size=micro)
    batches = [part for step in training_batches(data, recipe, 42) for part in step]
    computed = sum(part.tokens for part in batches)
    lengths = tuple(map(len, data.train.input_ids))
    for known in (None, lengths):
        work = batch_work(get_task(name), recipe, known)
        assert work.length * recipe.steps * recipe.batch_size == pytest.approx(computed, rel=0.05)
        if known or padding != "longest":
            largest = max(part.tokens for part in batches)
            assert math.prod(work.largest) == pytest.approx(largest, rel=0.12)
        else:
            assert work.largest == (micro or recipe.batch_size, recipe.max_length)


def test_the_typical_lengths_of_tiny_tasks_are_their_own(texts: tuple[str, EncodedTask]) -> None:
    name, data = texts
    real = sum(map(len, data.train.input_ids)) / len(data.train)
    assert batch_work(get_task(name), RECIPE).evaluated == pytest.approx(real, abs=1)


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.archive])
def test_real_batches_waste_what_was_measured(name: str) -> None:
    """At 128 tokens, batches of 32 compute 1.65 to 2.2 tokens for each real one, bucketed 1.1 to 1.3."""
    recipe = replace(load_space("paper").recipe, padding="longest")
    padded = batch_work(get_task(name), recipe)
    bucketed = batch_work(get_task(name), replace(recipe, padding="bucketed"))
    packed = batch_work(get_task(name), replace(recipe, padding="packed"))
    assert 1.5 < padded.length / packed.length < 2.4
    assert 1.05 < bucketed.length / packed.length < 1.3


def test_memory_grows_with_max_length() -> None:
    axes = {"models": ["phi-2"], "tasks": ["rte"], "strategies": ["ALL"], "seeds": ["42"]}

    def peak(**recipe: str) -> float:
        (trial,) = plan_space(space := load_space("paper", axes, recipe), assumptions(space, 80, None))
        return (trial.static_bytes + trial.training_bytes) / GIB

    assert peak(max_length="512", padding="longest") > 2.2 * peak(max_length="128", padding="longest")
    assert peak(max_length="128", padding="longest") == peak(max_length="128", padding="max_length")
    assert peak(padding="bucketed") < 0.95 * peak(padding="longest")
    assert peak(padding="longest", micro_batch_size="8") < 0.95 * peak(padding="longest")


def test_lengths_under_a_data_folder_are_used(tmp_path: Path) -> None:
    (tmp_path / "CB").mkdir()
    rows = [
        {"premise": "one two three", "hypothesis": "four" + " x" * n, "label": label, "idx": n}
        for n, label in enumerate(["entailment", "contradiction", "neutral"])
    ]
    for split in ("train", "val"):
        (tmp_path / "CB" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    space = load_space("embedded", {"models": ["tiny-gemma"], "tasks": ["cb", "tiny-cb"]})
    known = known_lengths(space, tmp_path)
    assert set(known) == {("tiny-gemma", "cb")}
    first, second, third = sorted(known["tiny-gemma", "cb"])
    assert second - first == third - second > 0
    plans = [plan_space(space, assumptions(space, 80, None), lengths) for lengths in (None, known)]
    typical, at_hand = ({t.factors: t.seconds for t in plan} for plan in plans)
    assert {f.task for f in typical if typical[f] != at_hand[f]} == {"cb"}
