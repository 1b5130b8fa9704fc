"""Groups of trials: few lines, and every trial in exactly one of them."""

from __future__ import annotations

import itertools
import random

import pytest

from reproduce.cli.trial_groups import grouped
from reproduce.plan.spec import Factors

MODELS, TASKS, STRATEGIES, SEEDS = (
    ("m1", "m2"),
    ("t1", "t2", "t3"),
    ("ALL", "BOT25", "BOT50", "LoRA"),
    (42, 43, 44, 50),
)
EVERY = [Factors(*values) for values in itertools.product(MODELS, TASKS, STRATEGIES, SEEDS)]


def test_everything_is_one_line() -> None:
    assert grouped(EVERY, EVERY) == [("all 2 models / all 3 tasks / all 4 strategies / all 4 seeds", 96)]


def test_what_was_not_reached_is_two_lines() -> None:
    left = [
        t for t in EVERY if (t.model, t.task) > ("m1", "t2") and not (t.model == "m1" and t.strategy == "ALL")
    ]
    assert grouped(left, EVERY) == [
        ("m1 / t3 / all strategies but ALL / all 4 seeds", 12),
        ("m2 / all 3 tasks / all 4 strategies / all 4 seeds", 48),
    ]


def test_a_seed_that_was_added_is_one_line() -> None:
    assert grouped([t for t in EVERY if t.seed in (42, 43, 44)], EVERY) == [
        ("all 2 models / all 3 tasks / all 4 strategies / seeds 42-44", 72)
    ]
    assert grouped([t for t in EVERY if t.seed == 50 and t.model == "m2"], EVERY) == [
        ("m2 / all 3 tasks / all 4 strategies / seed 50", 12)
    ]


def test_points_of_a_grid_are_named() -> None:
    trials = [Factors("m", "t", "ALL", 1, (("learning_rate", rate),)) for rate in (1e-3, 1e-4)]
    assert grouped(trials[:1], trials) == [("m / t / ALL / seed 1 / learning_rate=0.001", 1)]


@pytest.mark.parametrize("seed", range(20))
def test_the_numbers_of_the_lines_add_up(seed: int) -> None:
    drawn = random.Random(seed)
    trials = [trial for trial in EVERY if drawn.random() < 0.7]
    lines = grouped(trials, EVERY)
    assert sum(number for _, number in lines) == len(trials)
    assert len({words for words, _ in lines}) == len(lines)
    # Never longer than a line for each model, task and strategy.
    assert len(lines) <= len({(t.model, t.task, t.strategy) for t in trials})
    assert grouped(trials, EVERY) == lines
