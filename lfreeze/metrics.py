"""Measures of a classifier beside its accuracy, from labels and predictions as class indices."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence


def macro_f1(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """The mean F1 of the classes that occur among labels or predictions; 0 for a class that is never right."""
    correct, true, predicted = _counts(labels, predictions)
    return sum(2 * correct[c] / (true[c] + predicted[c]) for c in true | predicted) / len(true | predicted)


def matthews_correlation(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """The correlation of labels and predictions, -1 to 1, for any number of classes; 0 if either has one class only."""
    correct, true, predicted = _counts(labels, predictions)
    n = len(labels)
    together = n * correct.total() - sum(true[c] * predicted[c] for c in true)
    spread = [n * n - sum(count * count for count in counts.values()) for counts in (true, predicted)]
    return together / math.sqrt(math.prod(spread)) if all(spread) else 0.0


def _counts(
    labels: Sequence[int], predictions: Sequence[int]
) -> tuple[Counter[int], Counter[int], Counter[int]]:
    """By class, how often it is predicted correctly, how often it is the label, how often it is predicted."""
    correct = Counter(a for a, b in zip(labels, predictions, strict=True) if a == b)
    return correct, Counter(labels), Counter(predictions)
