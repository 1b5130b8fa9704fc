"""Strategies at equal values and at their own best ones, against planted and simulated accuracies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from reproduce.report import build
from reproduce.report.analysis.grid import (
    TUNED,
    GridChoice,
    choose_grid,
    grid_comparisons,
    tuned_accuracy,
    tuned_trials,
)
from reproduce.report.analysis.report_data import collect_data
from tests.reproduce.report.synthetic import trial_row, write_rows

Rows = list[dict[str, object]]


def rows(
    rates: Iterable[float],
    strategies: Iterable[str],
    seeds: Iterable[int],
    value: Callable[[str, float, int], float],
) -> Rows:
    strategies, seeds = list(strategies), list(seeds)
    return [
        trial_row(
            strategy,
            seed=seed,
            run_id=f"{strategy}-{rate:g}-{seed}",
            grid="learning_rate",
            recipe_learning_rate=rate,
            validation_accuracy=value(strategy, rate, seed),
        )
        for rate in rates
        for strategy in strategies
        for seed in seeds
    ]


def planted(strategy: str, rate: float, seed: int) -> float:
    """LoRA is better than ALL, but only at its own rate; seeds move both."""
    best = {("ALL", 1e-3): 0.70, ("LoRA", 1e-2): 0.78}
    return (
        best.get((strategy, rate), 0.60) + 0.01 * (seed % 3) + (0.002 * seed if strategy == "LoRA" else 0.0)
    )


def test_a_strategy_that_is_better_only_at_its_own_rate_is_found(tmp_path: Path) -> None:
    rates, seeds = (1e-4, 1e-3, 1e-2), range(1, 7)
    data = collect_data([write_rows(tmp_path, rows(rates, ("ALL", "LoRA"), seeds, planted))], ())
    grid = data.grid
    assert isinstance(grid, GridChoice)
    (found,) = grid_comparisons(data.every, grid, lambda query: None, ("ALL",))
    own = [planted("LoRA", 1e-2, seed) - planted("ALL", 1e-3, seed) for seed in seeds]
    expected = {
        f"learning_rate={rate}": [planted("LoRA", rate, s) - planted("ALL", rate, s) for s in seeds]
        for rate in rates
    } | {TUNED: own}
    for name, differences in expected.items():
        estimate = found.estimates[name]
        assert estimate is not None
        assert estimate.value == pytest.approx(float(np.mean(differences)))
        assert estimate.n == 12
    equal, tuned = found.estimates["learning_rate=0.001"], found.estimates[TUNED]
    # At the rate that suits ALL, LoRA loses; tuned, it wins, by more than its interval.
    assert equal is not None
    assert tuned is not None
    assert equal.value < -0.08
    assert tuned.value == pytest.approx(0.08 + 0.002 * 3.5)
    assert tuned.low is not None
    chosen = tuned_accuracy(data.every, grid)
    assert chosen.select("strategy", "half_1_point", "half_2_point", "n").rows() == [
        ("ALL", "learning_rate=0.001", "learning_rate=0.001", 6),
        ("LoRA", "learning_rate=0.01", "learning_rate=0.01", 6),
    ]


def test_each_half_is_judged_with_the_value_of_the_other(tmp_path: Path) -> None:
    """Seeds 1 and 2 prefer one rate, seeds 3 and 4 the other: each half gets what the other likes."""

    def value(strategy: str, rate: float, seed: int) -> float:
        return 0.8 if (rate == 1e-3) == (seed < 3) else 0.6 + 0.01 * seed

    data = collect_data([write_rows(tmp_path, rows((1e-3, 1e-2), ["ALL"], (1, 2, 3, 4), value))], ())
    assert data.grid is not None
    (row,) = tuned_accuracy(data.every, data.grid).to_dicts()
    assert (row["half_1_point"], row["half_2_point"]) == ("learning_rate=0.01", "learning_rate=0.001")
    assert row["half_1"] == pytest.approx((0.61 + 0.62) / 2)
    assert row["half_2"] == pytest.approx((0.63 + 0.64) / 2)
    assert row["tuned"] == pytest.approx(0.625)


def test_a_value_that_lacks_a_result_is_not_chosen(tmp_path: Path) -> None:
    """A rate at which a seed diverges has the higher mean of those that are left."""

    def value(strategy: str, rate: float, seed: int) -> float:
        return 0.9 if rate == 1e-2 else 0.7

    given = rows((1e-3, 1e-2), ["ALL"], (1, 2, 3, 4), value)
    lost = trial_row(
        "ALL", seed=1, run_id="x", grid="learning_rate", recipe_learning_rate=1e-2, status="error"
    )
    given = [lost if row["run_id"] == "ALL-0.01-1" else row for row in given]
    data = collect_data([write_rows(tmp_path, given)], ())
    assert data.grid is not None
    (row,) = tuned_accuracy(data.every, data.grid).to_dicts()
    assert (row["half_2_point"], row["half_1_point"]) == ("learning_rate=0.001", "learning_rate=0.01")
    # Of half 1, seed 1 has no result at the rate that half 2 chooses.
    assert (row["half_1"], row["half_2"], row["n"]) == (0.9, 0.7, 3)


def test_choosing_and_judging_on_the_same_seeds_misleads(tmp_path: Path) -> None:
    """On noise around 0.5, the best of five means over six seeds is too high by what theory says; halves are not."""
    n_experiments, values, n_seeds, deviation = 600, 5, 6, 0.03
    noise = 0.5 + deviation * np.random.default_rng(5).standard_normal((n_experiments, values, n_seeds))
    best = noise.mean(2).max(1)
    # The expected largest of five standard normal values (Teichroew, 1956).
    bias = 1.16296 * deviation / math.sqrt(n_seeds)
    assert best.mean() - 0.5 == pytest.approx(bias, abs=4 * best.std() / math.sqrt(n_experiments))
    experiment, value, seed = (place.ravel() for place in np.indices(noise.shape))
    trials = pl.DataFrame(
        {
            "model": "m",
            "task": [f"t{i:03}" for i in experiment],
            "strategy": "ALL",
            "seed": seed,
            "status": "ok",
            "grid": "learning_rate",
            "recipe_learning_rate": 10.0 ** -(1.0 + value),
            "validation_accuracy": noise.ravel(),
        }
    )
    grid = choose_grid(trials)
    assert grid is not None
    judged = tuned_trials(trials, grid)
    assert judged.height == n_experiments * n_seeds
    means = judged.group_by("task").agg(pl.col("validation_accuracy").mean())["validation_accuracy"]
    error = float(means.std()) / math.sqrt(n_experiments)  # type: ignore[arg-type]
    assert abs(float(means.mean()) - 0.5) < 4 * error  # type: ignore[arg-type]
    # The test could tell the two apart.
    assert bias > 10 * error


@pytest.mark.parametrize(
    ("values", "main", "of_paper"),
    [
        ((1e-3, 5e-5, 2e-5), 5e-5, True),
        ((1e-3, 3e-4, 3e-3), 1e-3, False),
        ((1e-3, 3e-4, 3e-3, 1e-2), 1e-3, False),
    ],
)
def test_the_paper_or_the_middle_value_is_compared(
    values: tuple[float, ...], main: float, of_paper: bool, tmp_path: Path
) -> None:
    data = collect_data([write_rows(tmp_path, rows(values, ["ALL"], (1, 2), lambda *_: 0.5))], ())
    assert data.grid is not None
    assert (data.grid.main, data.grid.of_paper) == ((("learning_rate", main),), of_paper)
    assert set(data.trials["recipe_learning_rate"]) == {main}
    assert data.trials.height == 2
    assert data.every.height == data.ok == 2 * len(values)
    assert data.repeated == 0


def test_the_page_never_averages_over_values(tmp_path: Path) -> None:
    """Its means are those of one value, which it names; the tables have the others, and missing trials their value."""
    given = rows((1e-4, 1e-3, 1e-2), ("ALL", "LoRA"), range(1, 7), planted)
    (lost,) = (row for row in given if row["run_id"] == "LoRA-0.0001-6")
    root = write_rows(tmp_path / "a", [row for row in given if row is not lost])
    cell = {name: lost[name] for name in ("model", "task", "strategy", "seed")}
    missing = [
        {**cell, "point": (("learning_rate", rate),), "run_id": f"LoRA-{rate:g}-6"} for rate in (1e-4, 1e-3)
    ]
    summary = build([root], tmp_path / "out", missing=missing)
    assert (summary.ok, summary.missing) == (35, 1)
    page = (tmp_path / "out" / "report.md").read_text("utf-8")
    assert "never averaged over them" in page
    assert "use those with learning_rate = 0.001 (in the middle" in page
    accuracy = pl.read_csv(tmp_path / "out" / "tables" / "accuracy.csv").filter(strategy="LoRA")
    expected = [planted("LoRA", 1e-3, seed) for seed in range(1, 7)]
    assert accuracy["tiny-rte mean"][0] == pytest.approx(np.mean(expected))
    assert accuracy["tiny-rte n"][0] == 6
    compared = pl.read_csv(tmp_path / "out" / "tables" / "grid.csv")
    assert compared["comparison"].to_list() == ["LoRA against ALL"]
    assert compared["tuned value"][0] == pytest.approx(0.087)
    problems = pl.read_csv(tmp_path / "out" / "tables" / "problems.csv")
    assert problems.select("problem", "seed", "point").rows() == [("missing", 6, "learning_rate=0.0001")]
