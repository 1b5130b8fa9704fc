"""Trials whose space varies recipe values: the main point of the grid, and each strategy's own best value.

Strategies are compared at equal values, and *tuned*: in each experiment, a strategy's value is chosen by the mean
accuracy of one half of the seeds and judged by the other half, then the halves swap. Choosing and judging on the same
seeds would favour what was lucky, the more so the more values there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import polars as pl

from lfreeze.recipe import Recipe
from reproduce.plan.search_space import load_space
from reproduce.plan.spec import GridPoint, point_text, value_text
from reproduce.report.analysis.aggregates import CELL, DIGITS, EXPERIMENT
from reproduce.report.analysis.estimands import ContrastEstimator, Estimate
from reproduce.report.analysis.examples import read_correctness
from reproduce.report.strategy_order import in_order, strategies_in_order
from reproduce.store.grid import grid_names, grid_points, with_points

TUNED = "tuned"
Read = Callable[[Callable[[pl.LazyFrame], pl.LazyFrame]], pl.DataFrame | None]


@dataclass(frozen=True)
class GridChoice:
    """The grid of some trials.

    Attributes:
        points: those that have trials, in the order of their values.
        main: the one whose trials the report compares in its figures, tables and claims.
        of_paper: whether the main point has the paper's values; otherwise it has the middle ones.
    """

    names: tuple[str, ...]
    points: tuple[GridPoint, ...]
    main: GridPoint
    of_paper: bool

    def at(self, trials: pl.DataFrame, point: GridPoint) -> pl.DataFrame:
        """The trials with these values."""
        return with_points(trials, self.names).filter(pl.col("point") == point_text(point)).drop("point")

    def at_main(self, trials: pl.DataFrame) -> pl.DataFrame:
        return self.at(trials, self.main)


@dataclass(frozen=True)
class GridComparison:
    """One strategy's accuracy minus another's, as a fraction of 1.

    Attributes:
        estimates: by the text of a point, and ``TUNED``; None where no trials can be compared.
    """

    strategy: str
    against: str
    estimates: Mapping[str, Estimate | None]


def choose_grid(trials: pl.DataFrame) -> GridChoice | None:
    """The grid of the trials; None without one, or where all trials have the same values."""
    names = grid_names(trials)
    found = set(grid_points(trials, names)) if names else set()
    if len(found) < 2:
        return None
    values = {name: sorted({dict(point)[name] for point in found}, key=_order) for name in names}

    def places(point: GridPoint) -> list[int]:
        return [values[name].index(value) for name, value in point]

    def preference(point: GridPoint) -> tuple[Any, ...]:
        foreign = sum(getattr(_paper_recipe(), name) != value for name, value in point)
        middle = [(len(values[name]) - 1) // 2 for name in names]
        return foreign, sum(abs(a - b) for a, b in zip(places(point), middle, strict=True)), places(point)

    main = min(found, key=preference)
    return GridChoice(names, tuple(sorted(found, key=places)), main, preference(main)[0] == 0)


def _order(value: Any) -> tuple[bool, Any]:
    """Numbers in their order, then other values in that of their texts."""
    number = isinstance(value, int | float)
    return not number, value if number else value_text(value)


@cache
def _paper_recipe() -> Recipe:
    return load_space("paper").recipe


def tuned_trials(trials: pl.DataFrame, grid: GridChoice) -> pl.DataFrame:
    """One trial for each cell: the one with the value that the other half of the experiment's seeds has chosen.

    The lower half of the seeds is the first; with an odd number, the second has one more. Of values with equal
    means, the first in the order of the grid is chosen; one that lacks a result of the half is not.

    Returns:
        The trials, with columns ``point``, the value chosen, and ``half``, 1 or 2, in which the trial is judged.
    """
    place = pl.Series("point", list(map(point_text, grid.points))).to_frame().with_row_index("place")
    cells = (
        with_points(trials.filter(pl.col("status") == "ok"), grid.names)
        .unique([*CELL, "point"], keep="first", maintain_order=True)
        .join(place, on="point")
    )
    rank, count = pl.col("seed").rank("dense").over(EXPERIMENT), pl.col("seed").n_unique().over(EXPERIMENT)
    cells = cells.with_columns(half=pl.when(2 * rank <= count).then(1).otherwise(2))
    keys = [*EXPERIMENT, "strategy"]
    chosen = (
        cells.with_columns(seeds=pl.col("seed").n_unique().over(*EXPERIMENT, "half"))
        .group_by(*keys, "half", "place")
        .agg(pl.col("validation_accuracy").mean().round(DIGITS), pl.len(), pl.col("seeds").first())
        .filter(pl.col("len") == pl.col("seeds"))
        .sort("validation_accuracy", "place", descending=[True, False])
        .unique([*keys, "half"], keep="first", maintain_order=True)
        .select(*keys, "place", half=3 - pl.col("half"))
    )
    return in_order(cells.join(chosen, on=[*keys, "half", "place"], how="semi").drop("place"))


def tuned_accuracy(trials: pl.DataFrame, grid: GridChoice) -> pl.DataFrame:
    """By model, task and strategy: accuracies at each point, and of the points that the halves of the seeds choose.

    Columns: for each point ``<point> mean``, ``std`` and ``n``; for each half ``half_1`` (the mean accuracy of its
    seeds) and ``half_1_point`` (the point that the other half has chosen for it); ``tuned``, the mean over all seeds
    that were judged, and ``n``, their number.
    """
    keys = [*EXPERIMENT, "strategy"]
    value = pl.col("validation_accuracy")
    wide = in_order(trials.select(keys).unique())
    for point in grid.points:
        rows = grid.at(trials.filter(pl.col("status") == "ok"), point).unique(
            CELL, keep="first", maintain_order=True
        )
        named = {f"{point_text(point)} mean": value.mean(), f"{point_text(point)} std": value.std()}
        means = rows.group_by(keys).agg(**named, **{f"{point_text(point)} n": pl.len()})
        wide = wide.join(means, on=keys, how="left", maintain_order="left")
    judged = tuned_trials(trials, grid)
    for half in (1, 2):
        own = judged.filter(pl.col("half") == half).group_by(keys)
        named = {f"half_{half}": value.mean(), f"half_{half}_point": pl.col("point").first()}
        wide = wide.join(own.agg(**named), on=keys, how="left", maintain_order="left")
    return wide.join(
        judged.group_by(keys).agg(tuned=value.mean(), n=pl.len()), on=keys, how="left", maintain_order="left"
    )


def grid_comparisons(
    trials: pl.DataFrame, grid: GridChoice, read: Read, against: Sequence[str]
) -> list[GridComparison]:
    """Every strategy against each of ``against``, at equal values and tuned; those without any estimate are left out.

    Args:
        trials: with trained weights.
        read: returns the result of a query on the table of predictions; None if there is none.
    """
    sets = {point_text(point): grid.at(trials, point) for point in grid.points}
    sets[TUNED] = tuned_trials(trials, grid)
    estimators = {name: ContrastEstimator(rows, read_correctness(rows, read)) for name, rows in sets.items()}
    compared = []
    for other in against:
        for strategy in strategies_in_order(trials["strategy"]):
            if strategy in against[: against.index(other) + 1]:
                continue
            estimates = {
                name: estimator.estimate("accuracy", {strategy: 1, other: -1})
                for name, estimator in estimators.items()
            }
            if any(estimates.values()):
                compared.append(GridComparison(strategy, other, estimates))
    return compared
