"""Every trial's complete row and loss curve, encoded compactly enough to embed in the HTML page.

A column is a list of its distinct cells and, unless all trials share one, a code for each trial. A
cell is a value, or ``{"why": reason}`` for a missing one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl

from reproduce.report.analysis.aggregates import distinct_trials
from reproduce.report.text.tables import MOST_ROWS
from reproduce.store.parquet import READ_ERRORS
from reproduce.store.schema import STEP_SCHEMA, TRIAL_COLUMNS

MOST_TRIALS = MOST_ROWS
MOST_POINTS = 50
_DIGITS = 9
_LOSS_DIGITS = 4
_UNKNOWN = "neither a value nor a reason was recorded"

# The folder's name, which is no column of the files.
_OTHER_GROUP = "Provenance"


def trial_records(trials: pl.DataFrame, steps: pl.LazyFrame | None = None) -> dict[str, Any]:
    """The details that the page shows when a reader opens a trial.

    Args:
        trials: trial rows as ``reproduce.store.parquet.read_trials`` returns them.
        steps: their training steps (``reproduce.store.parquet.scan_table``); None: no loss curves.

    Returns:
        ``count``, the number of trials, and ``columns``: each with ``name``, ``group``, its distinct
        ``cells`` and ``codes`` (an index into ``cells`` for each trial; null: all have the first).
        The columns ``loss_step`` and ``loss`` are a trial's curve of at most ``MOST_POINTS`` points,
        each the mean of the ``loss_width`` steps up to and including its own. With more than ``MOST_TRIALS``
        trials there are no columns.
    """
    rows = distinct_trials(trials)
    if rows.height > MOST_TRIALS:
        return {"count": rows.height, "columns": []}
    reasons = [_reasons(entries) for entries in rows["null_reasons"].to_list()]
    columns = []
    for name in rows.columns:
        group = TRIAL_COLUMNS[name].group if name in TRIAL_COLUMNS else _OTHER_GROUP
        if group:
            values = zip(rows[name].to_list(), reasons, strict=True)
            cells = [_cell(value, known.get(name, _UNKNOWN)) for value, known in values]
            columns.append(_packed(name, group, cells))
    if steps is not None:
        columns += _curves(rows["run_id"].to_list(), steps)
    return {"count": rows.height, "columns": columns}


def _reasons(entries: Sequence[Mapping[str, str]] | None) -> dict[str, str]:
    return {entry["column"]: entry["reason"] for entry in entries or ()}


def _cell(value: Any, reason: str) -> Any:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return {"why": reason if value is None else "not a finite number"}
    return _plain(value)


def _plain(value: Any, digits: int = _DIGITS) -> Any:
    """A value that JSON can represent."""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    if isinstance(value, list):
        return [_plain(item, digits) for item in value]
    return value


def _packed(name: str, group: str, cells: Sequence[Any]) -> dict[str, Any]:
    places: dict[str, int] = {}
    # Keyed by text, since 1, 1.0 and True are equal as dictionary keys.
    codes = [places.setdefault(repr(cell), len(places)) for cell in cells]
    firsts = dict(zip(reversed(codes), reversed(cells), strict=True))
    distinct = [firsts[code] for code in range(len(places))]
    return {"name": name, "group": group, "cells": distinct, "codes": codes if len(distinct) > 1 else None}


def _curves(run_ids: Sequence[str], steps: pl.LazyFrame) -> list[dict[str, Any]]:
    """Each trial's mean loss over spans of steps; null for a span with a non-finite loss."""
    width = (pl.len().over("run_id") / MOST_POINTS).ceil().cast(pl.Int64)
    span = (pl.int_range(pl.len()).over("run_id") // width).alias("span")
    shown = pl.LazyFrame({"run_id": list(run_ids)}, schema={"run_id": STEP_SCHEMA["run_id"]})
    points = (
        steps.select("run_id", "step", "loss")
        .join(shown, on="run_id", how="semi")
        .unique(["run_id", "step"], keep="first", maintain_order=True)
        .sort("run_id", "step")
        .with_columns(width=width, span=span)
        .group_by("run_id", "span", maintain_order=True)
        .agg(pl.col("step").last(), pl.col("loss").mean(), pl.col("width").first())
        .group_by("run_id", maintain_order=True)
        .agg("step", "loss", pl.col("width").first())
    )
    none = {"why": "no training step was recorded"}
    try:
        curves = {run_id: curve for run_id, *curve in points.collect().iter_rows()}
    except READ_ERRORS:
        # One damaged file makes all curves unreadable; the report is made without them.
        curves, none = {}, {"why": "a file of training steps could not be read"}
    by_name: dict[str, list[Any]] = {"loss_step": [], "loss": [], "loss_width": []}
    for run_id in run_ids:
        step, loss, steps_each = curves.get(run_id, (None, None, None))
        by_name["loss_step"].append(none if step is None else _plain(step))
        by_name["loss"].append(none if loss is None else _plain(loss, _LOSS_DIGITS))
        by_name["loss_width"].append(none if steps_each is None else steps_each)
    return [_packed(name, "", cells) for name, cells in by_name.items()]
