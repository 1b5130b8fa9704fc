"""The data of a report: trials, steps and predictions, and the trials without a result."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

import polars as pl

from reproduce.report.analysis.aggregates import CELL, distinct_trials, one_per_cell
from reproduce.report.analysis.examples import Correctness, read_correctness
from reproduce.store.parquet import Damaged, StoreError, TrialTable, read_trials, scan_table
from reproduce.store.trial_row import SKIPPED

_FACTOR = re.compile(r"(model|task|strategy)=(.+)")
_SEED = re.compile(r"seed=(-?\d+)-")


@dataclass(frozen=True)
class ReportData:
    """The trials of one or more artifact folders.

    Attributes:
        trials: each run once, in order; failed ones included.
        runs: the rows of every folder, so that a run in several folders occurs several times;
            ``artifacts`` names the folder.
        steps, predictions: lazy tables of the finished trials; None if no folder has any.
        damaged: files that could not be read: the trial's factors, as far as the path contains them,
            and ``reason``.
        missing: planned trials without a row.
        unreadable: which of ``steps`` and ``predictions`` turned out to be damaged.
    """

    trials: pl.DataFrame
    runs: pl.DataFrame
    steps: pl.LazyFrame | None
    predictions: pl.LazyFrame | None
    damaged: tuple[Mapping[str, object], ...]
    missing: tuple[Mapping[str, object], ...]
    unreadable: set[str] = field(default_factory=set)

    def read(self, table: str, query: Callable[[pl.LazyFrame], pl.LazyFrame]) -> pl.DataFrame | None:
        """The result of a query on ``steps`` or ``predictions``; None if there are no such files or one is damaged."""
        frame: pl.LazyFrame | None = getattr(self, table)
        if frame is None:
            return None
        try:
            return query(frame).collect(engine="streaming")
        except (pl.exceptions.PolarsError, OSError):
            self.unreadable.add(table)
            return None

    @cached_property
    def correctness(self) -> Correctness:
        """Which trials predicted which examples correctly."""
        return read_correctness(self.trials, lambda query: self.read("predictions", query))

    @property
    def ok(self) -> int:
        return self.trials.filter(pl.col("status") == "ok").height

    @property
    def skipped(self) -> int:
        """The number of trials that did not run, since they do not fit the GPUs."""
        return self.trials.filter(pl.col("status") == SKIPPED).height

    @property
    def failed(self) -> int:
        return self.trials.height - self.ok - self.skipped

    @property
    def total(self) -> int:
        """The number of all known trials, with or without a result."""
        return self.trials.height + len(self.damaged) + len(self.missing)

    @property
    def repeated(self) -> int:
        """The number of runs that are not used because another run has the same cell (``one_per_cell``)."""
        return self.trials.height - one_per_cell(self.trials).height


def collect_data(
    roots: Sequence[Path],
    missing: Sequence[Mapping[str, object]],
    tables: Sequence[TrialTable] | None = None,
) -> ReportData:
    """Read the folders; a planned trial is missing if it is neither finished nor damaged.

    Args:
        tables: what ``reproduce.store.parquet.read_trials`` returned for each folder, if it has been read.

    Raises:
        StoreError: there is no trial, not even a damaged or missing one.
    """
    tables = tables or [read_trials([root]) for root in roots]
    named = [
        table.frame.with_columns(artifacts=pl.lit(name))
        for table, name in zip(tables, _names(roots), strict=True)
    ]
    runs = pl.concat(named).with_columns(pl.selectors.float().fill_nan(None))
    trials = distinct_trials(runs)
    damaged = _without_repeats([_damaged(entry) for table in tables for entry in table.damaged])
    known = {tuple(cell) for cell in trials.select(CELL).iter_rows()}
    known |= {tuple(entry[name] for name in CELL) for entry in damaged}
    absent = {tuple(entry[name] for name in CELL): None for entry in missing}
    rest = [dict(zip(CELL, cell, strict=True)) for cell in absent if cell not in known]
    if not (trials.height or damaged or rest):
        folders = ", ".join(str(root) for root in roots)
        raise StoreError(f"there is nothing to report: {folders or 'no folder'} holds no finished trial")
    steps, predictions = (scan_table(tables, name) for name in ("steps", "predictions"))
    return ReportData(trials, runs, steps, predictions, tuple(damaged), tuple(rest))


def _names(roots: Sequence[Path]) -> list[str]:
    """The folders' names, numbered where several folders share a name."""
    names = [root.resolve().name for root in roots]
    return [
        name if names.count(name) == 1 else f"{name} ({names[:place].count(name) + 1})"
        for place, name in enumerate(names)
    ]


def _damaged(entry: Damaged) -> dict[str, object]:
    """The factors that a damaged file's path contains, and the reason with the path inside the folder."""
    factors: dict[str, object] = dict.fromkeys(CELL)
    parts = entry.path.parts
    start = next((i for i, part in enumerate(parts) if part.startswith("model=")), len(parts) - 1)
    for part in parts:
        if match := _FACTOR.fullmatch(part):
            factors[match[1]] = unquote(match[2])
    if match := _SEED.match(entry.path.name):
        factors["seed"] = int(match[1])
    shown = Path(*parts[max(0, start - 1) :])
    return {**factors, "reason": f"{entry.reason.replace(str(entry.path), shown.name)}: {shown}"}


def _without_repeats(entries: list[dict[str, object]]) -> list[dict[str, object]]:
    return list({str(entry): entry for entry in entries}.values())
