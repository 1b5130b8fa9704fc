"""What the choice of the validation examples adds to the variance of an accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from reproduce.report.analysis.estimands import ContrastEstimator
from reproduce.report.analysis.examples import Correctness, bounded_variance
from reproduce.report.analysis.report_data import ReportData
from reproduce.store.schema import PREDICTION_SCHEMA
from tests.reproduce.report.analysis.test_aggregates import frame
from tests.reproduce.report.synthetic import trial_row

KEY = ("m", "t")


def component(values: np.ndarray) -> float:
    """The component of one strategy's values, [seeds, examples], by ``Correctness``."""
    trials = {("A", seed): row.astype(bool) for seed, row in enumerate(values)}
    result = Correctness({KEY: trials}, {KEY: 1}).variance([KEY], {"A": 1}, range(len(values)))
    assert result is not None
    return result


def test_by_the_sums_of_squares_of_a_textbook() -> None:
    values = np.array([[1, 1, 0, 0, 1], [1, 0, 0, 0, 1], [1, 1, 0, 1, 1]])
    seeds, examples = values.shape
    grand = sum(map(int, values.flat)) / values.size
    of_example = [sum(int(v) for v in column) / seeds for column in values.T]
    of_seed = [sum(int(v) for v in row) / examples for row in values]
    between = seeds * sum((m - grand) ** 2 for m in of_example) / (examples - 1)
    rest = sum(
        (values[s, e] - of_seed[s] - of_example[e] + grand) ** 2
        for s in range(seeds)
        for e in range(examples)
    )
    within = rest / ((seeds - 1) * (examples - 1))
    assert component(values) == pytest.approx((between - within) / (seeds * examples))


def test_seeds_and_examples_together_are_the_variance_of_the_mean() -> None:
    # Trials drawn again and again, with other seeds and other examples: the spread of their means is what
    # the two parts of the variance predict.
    random = np.random.default_rng(3)
    means, predicted, seeds_alone = [], [], []
    for _ in range(3000):
        easy, able = random.normal(0, 1, 40), random.normal(0, 0.4, (4, 1))
        values = (0.3 + easy + able + random.normal(0, 1, (4, 40))) > 0
        means.append(values.mean())
        seeds_alone.append(values.mean(1).var(ddof=1) / 4)
        predicted.append(seeds_alone[-1] + component(values))
    assert np.mean(predicted) == pytest.approx(np.var(means), rel=0.08)
    assert np.mean(seeds_alone) < 0.85 * np.var(means)


def test_what_both_strategies_get_right_or_wrong_alike_adds_nothing() -> None:
    right = np.array([True, False, True, True, False])
    alike = Correctness({KEY: {(name, seed): right for name in ("A", "B") for seed in (1, 2)}}, {KEY: 1})
    assert alike.variance([KEY], {"A": 1, "B": -1}, (1, 2)) == 0
    assert alike.variance([KEY], {"A": 1}, (1, 2)) == pytest.approx(right.var(ddof=1) / 5)
    assert alike.variance([KEY], {"C": 1}, (1, 2)) is None
    assert alike.variance([("m", "u")], {"A": 1}, (1, 2)) is None


def test_models_share_the_examples_of_a_task() -> None:
    right = np.array([True, False, True, True, False])
    keys = [("m", "t"), ("n", "t"), ("o", "t")]
    alike = Correctness({key: {("A", 1): right} for key in keys}, dict.fromkeys(keys, 1))
    # Three models that err alike: three times the deviation, nine times the variance.
    assert alike.variance(keys, {"A": 1}, (1,)) == pytest.approx(9 * right.var(ddof=1) / 5)
    other = Correctness(alike.trials, {keys[0]: 1, keys[1]: 1, keys[2]: 2})
    assert other.variance(keys, {"A": 1}, (1,)) is None


def test_without_predictions_it_is_bounded() -> None:
    assert bounded_variance([0.8, 0.5], {"A": 1, "B": -1}, 100) == pytest.approx((0.16 + 0.25) / 100)
    assert bounded_variance([0.5], {"A": -2}, 50) == pytest.approx(4 * 0.25 / 50)


def _trial(
    strategy: str, seed: int, right: str, names: str = "abcdef"
) -> tuple[dict[str, Any], pl.DataFrame]:
    row = trial_row(strategy, *KEY, seed, validation_accuracy=right.count("1") / 6, n_validation=6)
    rows = [
        {"run_id": row["run_id"], "example_id": name, "label": 1, "prediction": int(mark), "logits": None}
        for name, mark in zip(names, right, strict=True)
    ]
    return row, pl.DataFrame(rows, schema=PREDICTION_SCHEMA)


def test_predictions_are_joined_by_example() -> None:
    rows, tables = zip(
        _trial("ALL", 1, "110100"),
        _trial("ALL", 2, "011011", "fedcba"),
        _trial("BOT25", 1, "111000"),
        _trial("BOT25", 2, "111110"),
        # A trial of other examples cannot be compared example by example.
        _trial("LoRA", 1, "111110", "uvwxyz"),
        strict=True,
    )
    trials = frame(*rows)
    data = ReportData(trials, trials, trials, None, pl.concat(tables).lazy(), None, (), ())
    known = data.correctness.trials[KEY]
    assert set(known) == {("ALL", 1), ("ALL", 2), ("BOT25", 1), ("BOT25", 2)}
    pairs = list(zip(known["ALL", 1].tolist(), known["ALL", 2].tolist(), strict=True))
    first, second = dict(zip("abcdef", "110100", strict=True)), dict(zip("fedcba", "011011", strict=True))
    assert sorted(pairs) == sorted((first[name] == "1", second[name] == "1") for name in "abcdef")
    contrast = {"BOT25": 1.0, "ALL": -1.0}
    with_examples = ContrastEstimator(data.trials, data.correctness).estimate("accuracy", contrast)
    bounded = ContrastEstimator(data.trials).estimate("accuracy", contrast)
    assert with_examples is not None
    assert bounded is not None
    assert with_examples.value == bounded.value
    assert (with_examples.low, with_examples.high) != (bounded.low, bounded.high)
