"""Checks each trial's row against its other tables: a number that they do not bear out is not believed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from lfreeze.errors import first_line
from lfreeze.metrics import macro_f1, matthews_correlation
from reproduce.store.checksums import table_checksum
from reproduce.store.parquet import READ_ERRORS, Damaged, TrialTable, scan_table
from reproduce.store.row_files import no_panic_message
from reproduce.store.schema import CHECKSUM_COLUMNS, EVALUATIONS

Row = Mapping[str, Any]


def checked_contents(table: TrialTable) -> TrialTable:
    """The table without the trials whose steps, predictions or evaluations are damaged or contradict their row.

    It reads all of these files, which takes some milliseconds for each trial.
    """
    rows = {row["run_id"]: row for row in table.frame.filter(pl.col("status") == "ok").iter_rows(named=True)}
    damaged: dict[str, Damaged] = {}
    problems = list(table.damaged)
    for name, fault_of in _FAULTS.items():
        seen = set()
        for path, trials in _read(table, name, problems):
            for run_id, part in trials.items():
                seen.add(run_id)
                if run_id in rows and (fault := _fault(rows[run_id], name, part, fault_of)):
                    damaged.setdefault(run_id, Damaged(path, fault))
        if getattr(table, name):
            for run_id in {run_id for run_id, row in rows.items() if _has(row, name)} - seen:
                damaged.setdefault(
                    run_id, Damaged(Path(name), f"no {name} of {_trial(rows[run_id])} are readable")
                )
    frame = table.frame.filter(~pl.col("run_id").is_in(list(damaged)))
    return replace(table, frame=frame, damaged=(*problems, *damaged.values()))


def _read(
    table: TrialTable, name: str, problems: list[Damaged]
) -> Iterator[tuple[Path, dict[str, pl.DataFrame]]]:
    """Each file with the rows of its trials by run id."""
    for path in getattr(table, name):
        only: dict[str, Any] = {name: (path,)}
        scan = scan_table([replace(table, **only)], name)
        assert scan is not None
        try:
            with no_panic_message():
                rows = scan.collect()
        except READ_ERRORS as error:
            problems.append(Damaged(path, first_line(error)))
            continue
        yield path, {run_id: part for (run_id,), part in rows.partition_by("run_id", as_dict=True).items()}


def _has(row: Row, table: str) -> bool:
    return table != EVALUATIONS or bool(row["recipe_evaluate_every"])


def _trial(row: Row) -> str:
    return f"{row['model']}/{row['task']}/{row['strategy']}/seed{row['seed']}"


def _fault(
    row: Row, name: str, rows: pl.DataFrame, fault_of: Callable[[Row, pl.DataFrame], str | None]
) -> str | None:
    expected = row[CHECKSUM_COLUMNS[name]]
    fault = fault_of(row, rows)
    if expected is not None and table_checksum(rows, name) != expected:
        fault = f"its {name} have been changed: their checksum is not that of the row"
    return f"{_trial(row)}: {fault}" if fault else None


def _steps_fault(row: Row, steps: pl.DataFrame) -> str | None:
    """Whether the steps are as many as the recipe says and their losses, tokens and times those of the row."""
    n = row["recipe_steps"]
    # The height first: a row may claim any number.
    if steps.height != n or sorted(steps["step"].to_list()) != list(range(1, n + 1)):
        return f"its steps are not 1 to {n}"
    for name in ("loss", "grad_norm"):
        if not steps[name].is_finite().all():
            return f"a {name} is not finite"
    tokens = steps["tokens"]
    if row["tokens"] is not None and not tokens.null_count() and tokens.sum() != row["tokens"]:
        return f"its steps have {tokens.sum():,} tokens, its row {row['tokens']:,}"
    timed = steps.filter(pl.col("timed") & (pl.col("phase") == "train"))["seconds"]
    median, claimed = timed.median(), row["step_seconds_median"]
    if claimed is not None and isinstance(median, float) and not math.isclose(median, claimed, rel_tol=1e-9):
        return f"the median of its step times is {median:g} s, in its row {claimed:g} s"
    return None


def _predictions_fault(row: Row, predictions: pl.DataFrame) -> str | None:
    """Whether the predictions are those of the logits and give the row's accuracy, macro-F1 and correlation."""
    n, classes = predictions.height, len(row["label_names"] or ())
    if n != row["n_validation"]:
        return f"it has {n:,} predictions, its row says {row['n_validation']}"
    if predictions["example_id"].n_unique() != n:
        return "an example was predicted twice"
    for name in ("label", "prediction"):
        values = predictions[name].drop_nulls()
        if classes and not values.is_between(0, classes - 1).all():
            return f"a {name} is none of its {classes} labels"
    logits, chosen = predictions["logits"].drop_nulls(), predictions["prediction"]
    # The label with the largest logit; an equal one may stand before it.
    best = predictions.select(
        pl.col("logits").list.get(pl.col("prediction"), null_on_oob=True) == pl.col("logits").list.max()
    )[:, 0]
    if len(logits) and not best.fill_null(False).all():
        return "a prediction is not the label with the largest logit"
    labels = predictions["label"]
    if not labels.null_count():
        both = labels.to_list(), chosen.to_list()
        for name, value in (
            ("validation_accuracy", (labels == chosen).sum() / n),
            ("macro_f1", macro_f1(*both)),
            ("matthews_correlation", matthews_correlation(*both)),
        ):
            claimed = row[name]
            if claimed is not None and not math.isclose(value, claimed, rel_tol=0, abs_tol=1e-9):
                return f"its predictions give a {name} of {value:.4f}, its row says {claimed:.4f}"
    return None


def _evaluations_fault(row: Row, evaluations: pl.DataFrame) -> str | None:
    """Whether the evaluations are at the steps that the recipe says and end with the row's accuracy."""
    every, last = row["recipe_evaluate_every"], row["recipe_steps"]
    ordered, n = evaluations.sort("step"), -(-last // every) if last and every else 0
    # Their number first: a row may claim any.
    if ordered.height != n or ordered["step"].to_list() != sorted({*range(every, last + 1, every), last}):
        return f"its evaluations are not those after every {every} of its {last} steps"
    if not ordered["loss"].is_finite().all():
        return "the loss of an evaluation is not finite"
    accuracy = ordered["accuracy"][-1]
    if not math.isclose(accuracy, row["validation_accuracy"], rel_tol=0, abs_tol=1e-9):
        return f"its last evaluation has an accuracy of {accuracy:.4f}, its row says {row['validation_accuracy']:.4f}"
    return None


_FAULTS: dict[str, Callable[[Row, pl.DataFrame], str | None]] = {
    "steps": _steps_fault,
    "predictions": _predictions_fault,
    EVALUATIONS: _evaluations_fault,
}
