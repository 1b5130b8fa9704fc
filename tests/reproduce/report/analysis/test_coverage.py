"""The coverage of the report's intervals and the rate of its false verdicts, by simulation at fixed seeds.

``docs/report.md`` shows the same table; after a change of the statistics,

    python -m tests.reproduce.report.analysis.test_coverage

prints the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from reproduce.report.analysis.examples import Correctness
from reproduce.report.analysis.inference import (
    LEVEL,
    Largest,
    Smallest,
    Uncertain,
    mean_over_blocks,
    mean_over_experiments,
)

_PAGE = Path(__file__).parents[4] / "docs" / "report.md"
_REPETITIONS = 1000
_KEY = ("m", "t")
Draw = Callable[[np.random.Generator], Uncertain]


def _difference(experiments: int, seeds: int) -> Draw:
    """A true difference of 0; each experiment has a spread over seeds of its own."""

    def draw(random: np.random.Generator) -> Uncertain:
        return mean_over_blocks(
            [random.normal(0, random.uniform(0.01, 0.05), seeds) for _ in range(experiments)]
        )

    return draw


def _with_examples(sizes: Iterable[int], *, models: int = 1, counted: bool = True) -> Draw:
    """Two strategies of equal accuracy that err on similar examples; five seeds, other examples in each repetition.

    Half of what distinguishes the strategies on an example is common to the models.
    """

    def draw(random: np.random.Generator) -> Uncertain:
        columns, variance = [], 0.0
        for n in sizes:
            easy = random.normal(0.8, 1, n)
            common = {name: random.normal(0, 0.35, n) for name in ("A", "B")}
            keys = [(f"m{model}", "t") for model in range(models)]
            right = {key: _predictions(random, easy, common) for key in keys}
            for trials in right.values():
                columns.append(np.array([trials["A", s].mean() - trials["B", s].mean() for s in range(5)]))
            known = Correctness(right, dict.fromkeys(keys, 1)).variance(keys, {"A": 1, "B": -1}, range(5))
            variance += known or 0.0
        return mean_over_blocks(columns, variance if counted else 0.0)

    return draw


def _predictions(
    random: np.random.Generator, easy: np.ndarray, common: dict[str, np.ndarray]
) -> dict[tuple[str, int], np.ndarray]:
    """Which examples one model gets right, by strategy and seed."""
    right = {}
    for name in ("A", "B"):
        level = easy + common[name] + random.normal(0, 0.35, len(easy))
        for seed in range(5):
            right[name, seed] = level + random.normal(0, 0.15) + random.normal(0, 0.5, len(easy)) > 0
    return right


def _points(random: np.random.Generator) -> np.ndarray:
    """Ranking points of 17 equally good strategies in 15 experiments of 5 seeds, [15, 17]."""
    means = random.normal(0, 0.02, (15, 5, 17)).mean(1)
    return stats.rankdata(means, axis=1) - 1


def _rank(random: np.random.Generator) -> Uncertain:
    points = _points(random)
    return mean_over_experiments(points[:, 0] - points[:, 1])


def _lead(random: np.random.Generator) -> Uncertain:
    points = _points(random)
    return Smallest(
        tuple(mean_over_experiments(points[:, a] - points[:, b]) for a in (0, 1) for b in range(2, 17))
    )


def _highest(random: np.random.Generator) -> Uncertain:
    """The highest of three models of equal speed, five tasks and seeds each."""
    return Largest(tuple(mean_over_blocks([random.normal(0, 0.02, 5) for _ in range(5)]) for _ in range(3)))


def _deviation(random: np.random.Generator) -> Uncertain:
    values = random.normal(0, random.uniform(0.01, 0.05, (15, 1, 1)), (15, 5, 2))
    spreads = values.std(1, ddof=1)
    return mean_over_experiments(spreads[:, 0] - spreads[:, 1])


_OMITTED = "the same, had the examples been left out"
_CASES: dict[str, Draw] = {
    "difference, 15 experiments × 5 seeds": _difference(15, 5),
    "difference, 3 × 3": _difference(3, 3),
    "difference, 3 × 2": _difference(3, 2),
    "difference, 3 × 5, small validation splits (56, 71, 277)": _with_examples((56, 71, 277)),
    "the same on 3 models": _with_examples((56, 71, 277), models=3),
    _OMITTED: _with_examples((56, 71, 277), models=3, counted=False),
    "ranking score, 17 equal strategies": _rank,
    "lead of two of 17 equal strategies": _lead,
    "highest of three equal models": _highest,
    "standard deviation, 15 × 5": _deviation,
}


@cache
def rates(name: str) -> tuple[float, float, float]:
    """The share of intervals that contain the true value, 0; that are below it; that are above it."""
    random = np.random.default_rng(20_250_101)
    below = above = 0
    for _ in range(_REPETITIONS):
        ends = _CASES[name](random).interval()
        assert ends is not None
        below += ends[1] < 0
        above += ends[0] > 0
    return 1 - (below + above) / _REPETITIONS, below / _REPETITIONS, above / _REPETITIONS


@cache
def false_contradictions() -> tuple[float, float]:
    """Of a claim with six true parts, how often some part's interval is outside: at 95 %, and at the claim's level."""
    random = np.random.default_rng(20_250_102)
    single = jointly = 0
    for _ in range(_REPETITIONS):
        parts = [_difference(15, 5)(random) for _ in range(6)]
        for level in (LEVEL, 1 - (1 - LEVEL) / 6):
            ends = [part.interval(level) for part in parts]
            wrong = any(end is not None and end[1] < 0 for end in ends)
            single += wrong and level == LEVEL
            jointly += wrong and level != LEVEL
    return single / _REPETITIONS, jointly / _REPETITIONS


def table() -> str:
    """The rows that the documentation shows."""
    lines = [
        "| interval, nominally 95 % | contains the true value | below it | above it |",
        "|---|---|---|---|",
    ]
    for name in _CASES:
        inside, below, above = (f"{100 * share:.1f} %" for share in rates(name))
        lines.append(f"| {name} | {inside} | {below} | {above} |")
    single, jointly = false_contradictions()
    lines += [
        "",
        f"A true claim of six parts is contradicted in {100 * jointly:.1f} % of repetitions; with the ",
    ]
    lines[-1] += f"95 % interval of each part it would be in {100 * single:.1f} %."
    return "\n".join(lines)


@pytest.mark.parametrize("name", [name for name in _CASES if name != _OMITTED])
def test_intervals_cover_the_true_value(name: str) -> None:
    inside, below, above = rates(name)
    # At 95 % a count below this has less than one chance in a thousand.
    assert inside * _REPETITIONS >= stats.binom.ppf(0.001, _REPETITIONS, LEVEL)
    assert max(below, above) * _REPETITIONS <= stats.binom.ppf(0.999, _REPETITIONS, (1 - LEVEL) / 2)


def test_without_the_examples_an_interval_is_too_short() -> None:
    assert rates(_OMITTED)[0] < 0.9


def test_a_true_claim_of_many_parts_is_seldom_contradicted() -> None:
    single, jointly = false_contradictions()
    assert jointly * _REPETITIONS <= stats.binom.ppf(0.999, _REPETITIONS, (1 - LEVEL) / 2)
    assert single > 2 * jointly


def test_a_planted_effect_is_seen() -> None:
    random = np.random.default_rng(8)
    seen = 0
    for _ in range(200):
        ends = mean_over_blocks([random.normal(-0.02, 0.03, 5) for _ in range(15)]).interval()
        seen += ends is not None and ends[1] < 0
    assert seen >= 190


def test_the_documentation_shows_these_rates() -> None:
    assert table() in _PAGE.read_text("utf-8")


if __name__ == "__main__":
    print(table())
