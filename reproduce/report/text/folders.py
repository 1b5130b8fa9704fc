"""Comparison of several artifact folders, such as two GPUs, or a sweep and its repetition."""

from __future__ import annotations

import polars as pl

from reproduce.report.analysis.aggregates import CELL, one_per_cell, training_peak
from reproduce.report.formatting import NONE, change, memory_unit, number, percent, seconds
from reproduce.report.strategy_order import BASELINE, in_order
from reproduce.report.text.tables import Column, Row, Table

_VALUES = ("accuracy", "memory", "memory_ratio", "time", "time_ratio", "exclusive")


def table_folders(runs: pl.DataFrame) -> pl.DataFrame:
    """Contents and origin of each folder: one row each, in the order of the arguments.

    Columns: folder, trials, ok, device, gpu_share, torch, commit, accuracy (mean over the cells that
    succeeded in every folder), same (number of these whose accuracy equals the first folder's), n (number
    of these cells), largest (largest absolute difference in accuracy to the first folder).
    """
    names = list(dict.fromkeys(runs["artifacts"]))
    common = _common(runs)
    first = common.filter(pl.col("artifacts") == names[0]).select(*CELL, first="validation_accuracy")
    compared = common.join(first, on=CELL, how="left") if common.height else common.with_columns(first=None)
    rows = []
    for name in names:
        held, shared = runs.filter(pl.col("artifacts") == name), compared.filter(pl.col("artifacts") == name)
        gap = (shared["validation_accuracy"] - shared["first"].cast(pl.Float64)).abs()
        rows.append(
            {
                "folder": name,
                "trials": held.height,
                "ok": held.filter(pl.col("status") == "ok").height,
                "device": _distinct(held["gpu_name"].fill_null(held["cpu_model"])),
                "torch": _distinct(held["torch_version"]),
                "commit": _distinct(held["git_commit"].str.head(12)),
                "accuracy": shared["validation_accuracy"].mean(),
                "same": int((gap == 0).sum()),
                "n": shared.height,
                "largest": gap.max(),
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def table_side_by_side(runs: pl.DataFrame) -> pl.DataFrame:
    """By model and strategy, each folder's numbers over the cells that succeeded in every folder.

    Columns: model, strategy, n (cells), and for each folder ``<folder> accuracy`` (mean), ``memory``
    (training, mean, bytes), ``memory_ratio`` and ``time_ratio`` (mean over cells of the ratio to ALL of
    the same cell and folder), ``time`` (median seconds per 10 steps) and ``exclusive``.
    """
    keys = ["model", "strategy"]
    common = _common(runs)
    wide = common.group_by(keys).agg(n=pl.struct(CELL).n_unique())
    for name in dict.fromkeys(runs["artifacts"]):
        means = (
            common.filter(pl.col("artifacts") == name)
            .with_columns(training_bytes=training_peak())
            .with_columns(
                memory_ratio=_against_all("training_bytes"), time_ratio=_against_all("seconds_per_10_steps")
            )
            .group_by(keys)
            .agg(
                accuracy=pl.col("validation_accuracy").mean(),
                memory=pl.col("training_bytes").mean(),
                memory_ratio=pl.col("memory_ratio").mean(),
                time=pl.col("seconds_per_10_steps").median(),
                time_ratio=pl.col("time_ratio").mean(),
                exclusive=pl.col("exclusive").all(),
            )
        )
        wide = wide.join(means.rename({v: f"{name} {v}" for v in _VALUES}), on=keys, how="left")
    return in_order(wide)


def _common(runs: pl.DataFrame) -> pl.DataFrame:
    """The rows of cells that succeeded in every folder, one for each folder."""
    folders = runs["artifacts"].n_unique()
    ok = [one_per_cell(rows) for _, rows in runs.group_by("artifacts", maintain_order=True)]
    whole = pl.concat(ok).filter(pl.col("status") == "ok")
    return whole.filter(pl.len().over(CELL) == folders)


def _against_all(column: str) -> pl.Expr:
    baseline = pl.col(column).filter(pl.col("strategy") == BASELINE).first().over("model", "task", "seed")
    return pl.when(baseline > 0).then(pl.col(column) / baseline)


def _distinct(values: pl.Series) -> str:
    return " · ".join(sorted(set(values.drop_nulls().cast(pl.String)))) or NONE


def folders_layout(frame: pl.DataFrame) -> Table:
    def text(name: str) -> Column:
        return Column(name, lambda row: row[name], numeric=False)

    def count(header: str, name: str) -> Column:
        return Column(header, lambda row: f"{row[name]:,}", value=lambda row: row[name])

    columns = (
        text("folder"),
        count("trials", "trials"),
        count("successful", "ok"),
        text("device"),
        text("torch"),
        text("commit"),
        Column("accuracy, %", lambda row: percent(row["accuracy"]), value=lambda row: row["accuracy"]),
        count("n compared", "n"),
        count("same accuracy", "same"),
        Column(
            "largest difference, points", lambda row: percent(row["largest"]), value=lambda r: r["largest"]
        ),
    )
    note = (
        "The comparison uses the model, task, strategy and seed combinations that succeeded in every folder: "
        "their mean accuracy, and the number of accuracies exactly equal to those of the first folder. "
        "`reproduce verify` lists the differences and their possible causes."
    )
    return Table("folders", "The folders", note, frame, columns)


def side_by_side_layout(frame: pl.DataFrame) -> Table:
    names = [name.removesuffix(" accuracy") for name in frame.columns if name.endswith(" accuracy")]
    most = max((frame[f"{name} memory"].max() or 0 for name in names), default=0)
    unit, size = memory_unit(most if isinstance(most, float) else None)
    columns = [
        Column("model", lambda row: row["model"], numeric=False),
        Column("strategy", lambda row: row["strategy"], numeric=False),
        Column("n", lambda row: f"{row['n']:,}", value=lambda row: row["n"]),
    ]
    for name in names:
        columns += _columns(name, unit, size)
    note = (
        f"Means over the trials that succeeded in every folder; times are medians. In parentheses: the change "
        f"against {BASELINE} in the same folder. ▲ the device was shared with other trials."
    )
    return Table("side_by_side", "Folders side by side", note, frame, tuple(columns))


def _columns(name: str, unit: str, size: int) -> list[Column]:
    def memory(row: Row) -> str:
        ratio = row[f"{name} memory_ratio"]
        return f"{number(row[f'{name} memory'], 2, 1 / size)} ({change(ratio)})"

    def time(row: Row) -> str:
        shared = " ▲" if row[f"{name} exclusive"] is False else ""
        return f"{seconds(row[f'{name} time'])} ({change(row[f'{name} time_ratio'])}){shared}"

    def accuracy(row: Row) -> str:
        return percent(row[f"{name} accuracy"])

    return [
        Column(f"{name}: accuracy, %", accuracy, value=lambda row: row[f"{name} accuracy"]),
        Column(f"{name}: training memory, {unit}", memory, value=lambda row: row[f"{name} memory"]),
        Column(f"{name}: s per 10 steps", time, value=lambda row: row[f"{name} time"]),
    ]
