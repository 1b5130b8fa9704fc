"""The headline: what a strategy costs or gains in accuracy, memory and time, as a table and as sentences."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from reproduce.report.analysis.estimands import Estimate
from reproduce.report.analysis.headline import QUANTITIES, Comparison
from reproduce.report.analysis.inference import Span
from reproduce.report.formatting import NONE, n_is, percent, plural
from reproduce.report.strategy_order import BASELINE
from reproduce.report.text.tables import Column, Table

# A quantity's name and unit; memory and speed are parts of ALL's value, whatever they are compared with.
_HEADERS = {
    "accuracy": ("accuracy", "points"),
    "memory": ("training memory saved", f"% of {BASELINE}'s"),
    "speed": ("training speed gained", f"% of {BASELINE}'s"),
}


def headline_layout(compared: Sequence[Comparison]) -> Table:
    """The headline's numbers as a table: one row for each comparison."""
    by_name = {f"{row.strategy} against {row.against}": row.estimates for row in compared}
    parts = ("value", "low", "high", "n", "n_blocks", "n_seeds")
    rows = [
        {"comparison": name}
        | {f"{key}_{part}": getattr(estimates[key], part, None) for key in QUANTITIES for part in parts}
        for name, estimates in by_name.items()
    ]

    def column(quantity: str) -> Column:
        header = ", ".join(_HEADERS[quantity])
        return Column(header, lambda row: _cell(by_name[row["comparison"]][quantity]))

    columns = (
        Column("strategy", lambda row: row["comparison"], numeric=False),
        *(column(quantity) for quantity in QUANTITIES),
    )
    note = (
        "Means over experiments (model × task) of differences paired by seed; more is better in every column. In "
        "brackets: 95 % interval, for memory the lowest to the highest model; n trials / experiments. Of each quantity, "
        "trials that are evidence on the paper's claims count, if there are any."
    )
    return Table("headline", "Cost and gain", note, pl.DataFrame(rows, infer_schema_length=None), columns)


def sentence(row: Comparison) -> str:
    """``BOT25 against ALL: accuracy −2.3 points (95 % interval −3.3 to −1.2; n = 150 trials in 15 experiments), …``"""
    parts = [
        f"{name} {_value(estimate)} {unit} ({_interval(estimate, '95 % interval ')}; {n_is(estimate.n)} trials in "
        f"{plural(estimate.n_blocks, 'experiment')})"
        for (name, unit), estimate in zip(_HEADERS.values(), map(row.estimates.get, _HEADERS), strict=True)
        if estimate
    ]
    return f"{row.strategy} against {row.against}: {', '.join(parts)}."


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return NONE
    counts = f"{n_is(estimate.n)} / {estimate.n_blocks:,}".replace(" ", "\N{NO-BREAK SPACE}")
    return f"{_value(estimate)} ({_interval(estimate)}; {counts})"


def _value(estimate: Estimate) -> str:
    """More than nothing carries a sign, since every value is a difference."""
    return ("+" if round(estimate.value, 3) > 0 else "") + percent(estimate.value)


def _interval(estimate: Estimate, name: str = "") -> str:
    if estimate.low is None:
        return "no interval: one seed" if estimate.n_seeds < 2 else "no interval"
    # Memory has no random error: its range is over models.
    name = "models " if isinstance(estimate.result, Span) else name
    return f"{name}{percent(estimate.low)} to {percent(estimate.high)}"
