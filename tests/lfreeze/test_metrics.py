"""Macro-F1 and Matthews correlation against scikit-learn."""

from __future__ import annotations

import random

import pytest
from sklearn.metrics import f1_score, matthews_corrcoef

from lfreeze.metrics import macro_f1, matthews_correlation


@pytest.mark.parametrize("seed", range(60))
def test_against_scikit_learn(seed: int) -> None:
    drawn = random.Random(seed)
    classes, n = drawn.randint(2, 7), drawn.randint(1, 60)
    labels = [drawn.randrange(classes) for _ in range(n)]
    share = drawn.choice((0.0, 0.3, 0.9, 1.0))
    predictions = [a if drawn.random() < share else drawn.randrange(classes) for a in labels]
    assert macro_f1(labels, predictions) == pytest.approx(f1_score(labels, predictions, average="macro"))
    # A single class makes scikit-learn warn that the confusion matrix has one row.
    if len({*labels, *predictions}) > 1:
        assert matthews_correlation(labels, predictions) == pytest.approx(
            matthews_corrcoef(labels, predictions)
        )


@pytest.mark.parametrize(
    ("labels", "predictions", "f1", "correlation"),
    [
        ([0, 1, 1, 0], [0, 1, 1, 0], 1, 1),
        ([0, 1, 1, 0], [1, 0, 0, 1], 0, -1),
        # Class 0: 2 * 3 / (3 + 4); class 1: 0.
        ([0, 0, 0, 1], [0, 0, 0, 0], 3 / 7, 0),
        ([1, 1], [1, 1], 1, 0),
    ],
)
def test_by_hand(labels: list[int], predictions: list[int], f1: float, correlation: float) -> None:
    assert macro_f1(labels, predictions) == pytest.approx(f1)
    assert matthews_correlation(labels, predictions) == pytest.approx(correlation)
