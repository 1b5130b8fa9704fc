"""The data of a report: trials, steps and predictions, and the trials without a result."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

import polars as pl

from reproduce.plan.spec import point_text
from reproduce.report.analysis.aggregates import CELL, distinct_trials
from reproduce.report.analysis.examples import Correctness, read_correctness
from reproduce.report.analysis.grid import GridChoice, choose_grid
from reproduce.store.grid import grid_names, with_points
from reproduce.store.parquet import READ_ERRORS, Damaged, StoreError, TrialTable, read_trials, scan_table
from reproduce.store.trial_row import SKIPPED

_FACTOR = re.compile(r"(model|task|strategy)=(.+)")
_SEED = re.compile(r"seed=(-?\d+)-")


@dataclass(frozen=True)
class ReportData:
    """The trials of one or more artifact folders.

    Attributes:
        every: each run once, in order; failed ones included.
        trials: those of ``every`` that are compared; with a grid, those at its main point.
        runs: the rows of every folder, so that a run in several folders occurs several times;
            ``artifacts`` names the folder. With a grid, those at its main point.
        steps, predictions, evaluations: lazy tables of the finished trials; None if no folder has any.
        damaged: files that could not be read: the trial's factors, as far as the path contains them,
            and ``reason``.
        missing: planned trials without a row.
        grid: the grid of the trials' spaces; None without one.
        unreadable: which of the lazy tables turned out to be damaged.
    """

    every: pl.DataFrame
    trials: pl.DataFrame
    runs: pl.DataFrame
    steps: pl.LazyFrame | None
    predictions: pl.LazyFrame | None
    evaluations: pl.LazyFrame | None
    damaged: tuple[Mapping[str, object], ...]
    missing: tuple[Mapping[str, object], ...]
    grid: GridChoice | None = None
    unreadable: set[str] = field(default_factory=set)

    def read(self, table: str, query: Callable[[pl.LazyFrame], pl.LazyFrame]) -> pl.DataFrame | None:
        """The result of a query on a lazy table; None if there are no such files or one is damaged."""
        frame: pl.LazyFrame | None = getattr(self, table)
        if frame is None:
            return None
        try:
            return query(frame).collect(engine="streaming")
        except READ_ERRORS:
            self.unreadable.add(table)
            return None

    @cached_property
    def correctness(self) -> Correctness:
        """Which trials predicted which examples correctly."""
        return read_correctness(self.trials, lambda query: self.read("predictions", query))

    @property
    def ok(self) -> int:
        return self.every.filter(pl.col("status") == "ok").height

    @property
    def skipped(self) -> int:
        """The number of trials that did not run, since they do not fit the GPUs."""
        return self.every.filter(pl.col("status") == SKIPPED).height

    @property
    def failed(self) -> int:
        return self.every.height - self.ok - self.skipped

    @property
    def total(self) -> int:
        """The number of all known trials, with or without a result."""
        return self.every.height + len(self.damaged) + len(self.missing)

    @property
    def repeated(self) -> int:
        """The number of runs that are not used because another run has the same cell and grid values."""
        cells = with_points(self.every, self.grid.names if self.grid else ())
        return cells.height - cells.unique([*CELL, "point"]).height


def collect_data(
    roots: Sequence[Path],
    missing: Sequence[Mapping[str, object]],
    tables: Sequence[TrialTable] | None = None,
) -> ReportData:
    """Read the folders; a planned trial is missing if it is neither finished nor damaged.

    Args:
        missing: mappings with model, task, strategy and seed, and as far as there are, ``point``, the values of a
            grid, and ``run_id``.
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
    every = distinct_trials(runs)
    damaged = _without_repeats([_damaged(entry) for table in tables for entry in table.damaged])
    rest = _absent(every, tables, missing, damaged)
    if not (every.height or damaged or rest):
        folders = ", ".join(str(root) for root in roots)
        raise StoreError(f"there is nothing to report: {folders or 'no folder'} holds no finished trial")
    steps, predictions, evaluations = (
        scan_table(tables, name) for name in ("steps", "predictions", "evaluations")
    )
    grid = choose_grid(every)
    trials, runs = (grid.at_main(rows) if grid else rows for rows in (every, runs))
    return ReportData(every, trials, runs, steps, predictions, evaluations, tuple(damaged), tuple(rest), grid)


def _absent(
    trials: pl.DataFrame,
    tables: Sequence[TrialTable],
    missing: Sequence[Mapping[str, object]],
    damaged: Sequence[Mapping[str, object]],
) -> list[dict[str, object]]:
    """The planned trials that are neither finished nor damaged, each once."""
    points: list[dict[str, object]] = [dict(entry.get("point", ())) for entry in missing]  # type: ignore[call-overload]
    names = tuple(dict.fromkeys([*grid_names(trials), *(name for point in points for name in point)]))
    known = {tuple(cell) for cell in with_points(trials, names).select(*CELL, "point").iter_rows()}
    ids = {entry.path.stem.rsplit("-", 1)[-1] for table in tables for entry in table.damaged}
    without_id = {tuple(entry[name] for name in CELL) for entry in damaged}
    absent = {}
    for entry, values in zip(missing, points, strict=True):
        cell = tuple(entry[name] for name in CELL)
        point = point_text((name, values[name]) for name in names if name in values)
        found = entry["run_id"] in ids if "run_id" in entry else cell in without_id
        if not found and (*cell, point) not in known:
            absent[*cell, point] = dict(zip((*CELL, "point"), (*cell, point), strict=True))
    return list(absent.values())


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
