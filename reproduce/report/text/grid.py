"""The tables and the sentence about trials whose space varies recipe values."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from reproduce.plan.spec import point_text, value_text
from reproduce.report.analysis.estimands import Estimate
from reproduce.report.analysis.grid import TUNED, GridChoice, GridComparison
from reproduce.report.formatting import NONE, n_is, percent
from reproduce.report.text.tables import Column, Row, Table

_HALVES = (
    "Tuned: in each experiment (model × task), a strategy's value is chosen by the mean accuracy of one half of the "
    "seeds and judged by the other half, and the halves swap; so no trial both chooses and is judged."
)


def grid_notice(grid: GridChoice) -> str:
    """Which of the grid's trials the report compares, and where the others are."""
    values = {name: list(dict.fromkeys(dict(point)[name] for point in grid.points)) for name in grid.names}
    varied = "; ".join(f"{name}: {', '.join(map(value_text, each))}" for name, each in values.items())
    which = "the paper's" if grid.of_paper else "in the middle, since the paper's is not among them"
    return (
        f"The trials differ in recipe values by design ({varied}) and are never averaged over them. Figures, tables and "
        f"claims use those with {_shown(point_text(grid.main))} ({which}); “Equal and tuned values” compares strategies at "
        "every value, and each at its own best one."
    )


def comparisons_layout(compared: Sequence[GridComparison]) -> Table:
    """Differences in accuracy at equal values and tuned: one row for each pair of strategies."""
    by_name = {f"{row.strategy} against {row.against}": row.estimates for row in compared}
    parts = ("value", "low", "high", "n", "n_blocks", "n_seeds")
    names = list(compared[0].estimates)
    rows = [
        {"comparison": name}
        | {f"{key} {part}": getattr(estimates[key], part, None) for key in names for part in parts}
        for name, estimates in by_name.items()
    ]

    def column(key: str) -> Column:
        return Column(
            _shown(key),
            lambda row: _cell(by_name[row["comparison"]][key]),
            value=lambda row: row[f"{key} value"],
        )

    columns = (Column("strategy", lambda row: row["comparison"], numeric=False), *map(column, names))
    note = (
        "Differences in accuracy, in points, paired by seed: means over experiments, in brackets the 95 % interval; n "
        f"trials / experiments. In each column but the last, both strategies have the same value. {_HALVES}"
    )
    return Table(
        "grid", "Equal and tuned values", note, pl.DataFrame(rows, infer_schema_length=None), columns
    )


def tuned_layout(frame: pl.DataFrame, grid: GridChoice) -> Table:
    """Accuracies at each value, and of the values that the halves of the seeds choose."""

    def at(point: str) -> Column:
        def text(row: Row) -> str:
            mean, std, n = (row[f"{point} {part}"] for part in ("mean", "std", "n"))
            return f"{percent(mean)} ± {percent(std)} ({n})" if n else NONE

        return Column(_shown(point), text, value=lambda row: row[f"{point} mean"])

    def half(number: int) -> Column:
        def text(row: Row) -> str:
            chosen = row[f"half_{number}_point"]
            return f"{percent(row[f'half_{number}'])} at {_shown(chosen)}" if chosen else NONE

        return Column(
            f"half {number}, chosen by half {3 - number}", text, value=lambda r: r[f"half_{number}"]
        )

    def tuned(row: Row) -> str:
        return f"{percent(row['tuned'])} ({row['n']})" if row["n"] else NONE

    words = [_word(name) for name in ("model", "task", "strategy")]
    columns = (
        *words,
        *(at(point_text(point)) for point in grid.points),
        half(1),
        half(2),
        Column(TUNED, tuned, value=lambda row: row["tuned"]),
    )
    note = (
        "Validation accuracy in percent: mean ± sample standard deviation over seeds, n in parentheses. "
        f"{_HALVES} The lower seeds are half 1. Of equal means, the first value counts; a value that lacks a result of "
        "the choosing half is not chosen."
    )
    return Table("tuned", "The values that each half chooses", note, frame, columns)


def _word(name: str) -> Column:
    return Column(name, lambda row: row[name], numeric=False)


def _shown(point: str) -> str:
    return point.replace("=", " = ").replace(",", ", ")


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return NONE
    sign = "+" if round(estimate.value, 3) > 0 else ""
    ends = "no interval" if estimate.low is None else f"{percent(estimate.low)} to {percent(estimate.high)}"
    counts = f"{n_is(estimate.n)} / {estimate.n_blocks:,}".replace(" ", "\N{NO-BREAK SPACE}")
    return f"{sign}{percent(estimate.value)} ({ends}; {counts})"
