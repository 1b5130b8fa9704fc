"""What a benchmark is: a name, a sentence, a function that measures ratios, and how they are drawn."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from reproduce.bench.workbench import Workbench

First = TypeVar("First")
Second = TypeVar("Second")


@dataclass(frozen=True)
class Row:
    """One measured ratio.

    Attributes:
        name: what the ratio is of, such as a strategy.
        ratios: one for each pair of measurements.
        ideal: what the ratio would be if time or memory were in proportion to the computed work or the counted
            bytes; None where no closed form says so.
        series: which of several curves of the picture the row belongs to.
        values: the medians of both parts, and what else the reader needs; units are in the names.
    """

    name: str
    ratios: tuple[float, ...]
    ideal: float | None = None
    series: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)

    @property
    def low(self) -> float:
        return min(self.ratios)

    @property
    def high(self) -> float:
        return max(self.ratios)


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        sentence: what is measured, and what the ratio is of.
        ratio: the ratio in a few words, for the table and the picture's axis.
        logarithmic: whether the picture's axis is.
    """

    name: str
    sentence: str
    ratio: str
    run: Callable[[Workbench], list[Row]]
    logarithmic: bool = False


def alternating(
    pairs: int, first: Callable[[], First], second: Callable[[], Second]
) -> list[tuple[First, Second]]:
    """Measure two things in turn, ``pairs`` times each; every other pair begins with the second."""
    measured = []
    for number in range(pairs):
        if number % 2:
            right, left = second(), first()
        else:
            left, right = first(), second()
        measured.append((left, right))
    return measured


def ratio_row(
    name: str,
    pairs: list[tuple[float, float]],
    parts: tuple[str, str],
    *,
    ideal: float | None = None,
    series: str = "",
    **values: Any,
) -> Row:
    """The row of the first part over the second; ``parts`` name both, with their unit."""
    medians = {
        part: statistics.median(column) for part, column in zip(parts, zip(*pairs, strict=True), strict=True)
    }
    return Row(name, tuple(a / b for a, b in pairs), ideal, series, medians | values)
