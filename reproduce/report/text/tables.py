"""The format of each table: its columns as text, for HTML, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from reproduce.plan.spec import value_text
from reproduce.report.analysis.tables import MAJORITY
from reproduce.report.formatting import NONE, change, memory_unit, number, percent, seconds

Row = Mapping[str, Any]
MOST_ROWS = 2000


@dataclass(frozen=True)
class Column:
    """One column: its header, a row's text, and the value that the row is sorted by (None: the text)."""

    header: str
    text: Callable[[Row], str]
    numeric: bool = True
    value: Callable[[Row], float | None] | None = None


@dataclass(frozen=True)
class TableCell:
    """One cell of a table; ``sort`` is the text that the page sorts it by."""

    text: str
    numeric: bool
    sort: str


@dataclass(frozen=True)
class Table:
    """A table of the report; ``name`` is the stem of its CSV file."""

    name: str
    title: str
    note: str
    frame: pl.DataFrame
    columns: tuple[Column, ...]

    @property
    def rows(self) -> list[list[TableCell]]:
        """The cells of at most ``MOST_ROWS`` rows."""
        shown = self.frame.head(MOST_ROWS).iter_rows(named=True)
        return [[_cell(column, row) for column in self.columns] for row in shown]

    @property
    def whole_note(self) -> str:
        """The note, and where the rows that are not shown can be found."""
        if self.frame.height <= MOST_ROWS:
            return self.note
        rest = f"This shows the first {MOST_ROWS:,} of {self.frame.height:,} rows; tables/{self.name}.csv has all."
        return f"{self.note} {rest}"

    def markdown(self) -> str:
        """The table in GitHub's Markdown."""
        lines = [
            "| " + " | ".join(column.header for column in self.columns) + " |",
            "|" + "|".join("---:" if column.numeric else "---" for column in self.columns) + "|",
        ]
        lines += ["| " + " | ".join(escape_markdown(cell.text) for cell in row) + " |" for row in self.rows]
        return "\n".join(lines)


def escape_markdown(text: str) -> str:
    """Text in one line, with the special characters of Markdown tables and HTML escaped."""
    escaped = (
        text.replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
        .replace("\\", "\\\\")
        .replace("|", "\\|")
    )
    return " ".join(escaped.split())


def tasks_layout(frame: pl.DataFrame) -> Table:
    def labels(row: Row) -> str:
        return ", ".join(row["label_names"])

    def printed(row: Row) -> str:
        used, available = row["paper_train"], row["paper_train_available"]
        if used is None:
            return NONE
        if used == available:
            return f"{used:,}, {percent(row['paper_train_used'], 0)} %"
        return f"{used:,} of {available:,}, {percent(row['paper_train_used'])} %"

    columns = (
        _word("task"),
        Column("labels", labels, numeric=False),
        _plain("training, used", "n_train", "{:,}".format),
        _plain("training, loaded", "n_train_available", "{:,}".format),
        _plain("used, % of loaded", "train_used", lambda v: percent(v, 2)),
        Column("training, paper's Table 1", printed, value=lambda row: row["paper_train"]),
        _plain("training, official", "benchmark_train", "{:,}".format),
        _plain("validation, used", "n_validation", "{:,}".format),
        _plain("validation, loaded", "n_validation_available", "{:,}".format),
        _plain("validation, official", "benchmark_validation", "{:,}".format),
    )
    note = (
        "Numbers of examples of each task: used by the trials, in the splits as loaded, as the paper prints them "
        "(rounded there), and in the benchmark's official release. The paper's validation split is the whole one, "
        "for MNLI the matched one. Tiny tasks are generated and have no official size."
    )
    return Table("tasks", "Table 1. Tasks", note, frame, columns)


def predictions_layout(frame: pl.DataFrame) -> Table:
    most = frame["training_bytes"].max()
    unit, size = memory_unit(most if isinstance(most, float) else None)

    def depth(name: str) -> Callable[[Row], str]:
        return lambda row: f"{row[name]:g} of {row['n_layers']:g}"

    def ratio(name: str) -> Callable[[Row], str]:
        return lambda row: NONE if row[name] is None else number(row[name], 3)

    def time(row: Row) -> str:
        return ratio("measured_time_ratio")(row) + (" ▲" if row["exclusive"] is False else "")

    columns = (
        _word("model"),
        _word("task"),
        _word("strategy"),
        _plain(f"training memory, {unit}", "training_bytes", lambda v: number(v, 2, 1 / size)),
        _plain(f"predicted, {unit}", "predicted_training_bytes", lambda v: number(v, 2, 1 / size)),
        _plain("measured / predicted", "memory_measured_over_predicted", lambda v: number(v, 3)),
        Column("backward depth", depth("backward_depth"), value=lambda r: r["backward_depth"]),
        Column(
            "predicted depth", depth("planned_backward_depth"), value=lambda r: r["planned_backward_depth"]
        ),
        Column("step time / ALL's", time, value=lambda row: row["measured_time_ratio"]),
        Column("predicted (FLOPs)", ratio("predicted_time_ratio"), value=lambda r: r["predicted_time_ratio"]),
        _plain("n", "n", str),
    )
    note = (
        "Closed-form predictions from the model's dimensions, compared with measurements; an adaptive "
        "strategy's are of the phase after its switch. The predicted time "
        "counts floating-point operations, a lower bound on a fully utilised device; memory-bound work, such "
        "as the optimiser's, adds to it. ▲ the device was shared."
    )
    return Table("predictions", "Predicted and measured", note, frame, columns)


def accuracy_layout(frame: pl.DataFrame) -> Table:
    tasks = [name.removesuffix(" mean") for name in frame.columns if name.endswith(" mean")]
    note = "Validation accuracy in percent: mean ± sample standard deviation over seeds, n in parentheses."
    return Table(
        "accuracy", "Accuracy", note, frame, (_word("model"), _word("strategy"), *map(_accuracy, tasks))
    )


def _accuracy(task: str) -> Column:
    def text(row: Row) -> str:
        mean, std, n = (row[f"{task} {name}"] for name in ("mean", "std", "n"))
        if row["strategy"] == MAJORITY:
            return percent(mean)
        return NONE if not n else f"{percent(mean)} ± {percent(std)} ({n})"

    return Column(task, text, value=lambda row: row[f"{task} mean"])


def efficiency_layout(frame: pl.DataFrame) -> Table:
    training = frame["training_bytes"].max()
    unit, size = memory_unit(training if isinstance(training, float) else None)

    def memory(header: str, name: str) -> Column:
        return _plain(f"{header}, {unit}", name, lambda v: number(v, 2, 1 / size))

    columns = (
        _word("model"),
        _word("task"),
        _word("strategy"),
        memory("static memory", "static_bytes"),
        memory("training memory", "training_bytes"),
        _plain("against ALL", "memory_ratio", change),
        memory("after the switch", "after_switch_bytes"),
        Column("s per 10 steps", _speed, value=lambda row: row["seconds_per_10_steps"]),
        _plain("against ALL", "time_ratio", change),
        _plain("first 10 steps, s", "first_10_steps_seconds", seconds),
        Column("backward depth", _depth, value=lambda row: row["backward_depth"]),
        _plain("trainable, %", "trainable_share", percent),
        Column(
            "n memory / speed",
            lambda row: f"{row['n_memory']} / {row['n_speed']}",
            value=lambda r: r["n_memory"],
        ),
    )
    note = (
        "Medians over seeds; “against ALL” is the change relative to ALL's median for the same model and task. "
        "Training memory is the peak of the whole run above the static model. An adaptive strategy trains every "
        "layer until its switch: its peak is the probe's, the first 10 steps include the probe and the "
        "selection of layers, and “after the switch” is the peak from then on. Backward depth: number of "
        "layers that the backward pass crosses. ▲ the device was shared with other trials."
    )
    return Table("efficiency", "Memory and speed", note, frame, columns)


def _speed(row: Row) -> str:
    return seconds(row["seconds_per_10_steps"]) + (" ▲" if row["exclusive"] is False else "")


def _depth(row: Row) -> str:
    depth = row["backward_depth"]
    return NONE if depth is None else f"{depth:g} of {row['n_layers']}"


def ranking_layout(frame: pl.DataFrame) -> Table:
    columns = (
        _word("strategy"),
        _word("group", "ranked among"),
        _plain("ranking score", "score", lambda v: number(v, 2)),
        _plain("std", "std", lambda v: number(v, 2)),
        _plain("highest possible", "most", lambda v: number(v, 1).removesuffix(".0")),
        _plain("n experiments", "n", str),
    )
    note = (
        "In each experiment (model × task), the paper's strategies are ranked by mean accuracy: the best of K "
        "gets K − 1 points, the worst 0, and ties share the mean. Other strategies do not move these ranks: "
        "with the accuracy of one of them they get its points. The score is the mean over the experiments in which "
        "a strategy was run."
    )
    return Table("ranking", "Ranking score", note, frame, columns)


def trials_layout(frame: pl.DataFrame) -> Table:
    most = frame["training_bytes"].max()
    unit, size = memory_unit(most if isinstance(most, int) else None)
    varied = [name for name in frame.columns if name.startswith("recipe_")]
    columns = (
        _word("strategy"),
        _word("model"),
        _word("task"),
        _plain("seed", "seed", str),
        *(_plain(name.removeprefix("recipe_"), name, value_text) for name in varied),
        _word("status"),
        _plain("accuracy, %", "validation_accuracy", percent),
        _plain("macro-F1, %", "macro_f1", percent),
        _plain("Matthews correlation", "matthews_correlation", lambda v: number(v, 3)),
        Column("s per 10 steps", _speed, value=lambda row: row["seconds_per_10_steps"]),
        _plain(f"training memory, {unit}", "training_bytes", lambda v: number(v, 2, 1 / size)),
        Column("frozen layers", _layers, numeric=False, value=lambda row: len(row["frozen_layers"] or ())),
        _word("run_id", "run id"),
    )
    note = "Memory is the whole run's peak; macro-F1 the labels' mean. Layers count from 1 at the input. ▲ shared device."
    return Table("trials", "All trials", note, frame, columns)


def _layers(row: Row) -> str:
    """``1–4, 8`` for the layers 0, 1, 2, 3 and 7."""
    if row["frozen_layers"] is None:
        return NONE
    runs: list[list[int]] = []
    for layer in sorted(row["frozen_layers"]):
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    texts = [str(a + 1) if a == b else f"{a + 1}–{b + 1}" for a, b in runs]
    return ", ".join(texts) or "none"


def problems_layout(frame: pl.DataFrame) -> Table:
    columns = (
        _word("problem"),
        _word("strategy"),
        _word("model"),
        _word("task"),
        _plain("seed", "seed", str),
        *([_word("point", "grid")] if frame["point"].str.len_chars().sum() else []),
        _word("reason"),
    )
    note = "Planned trials without a result. They are excluded from all means."
    return Table("problems", "Trials without a result", note, frame, columns)


def _word(name: str, header: str | None = None) -> Column:
    return Column(header or name, lambda row: NONE if row[name] is None else str(row[name]), numeric=False)


def _plain(header: str, name: str, text: Callable[[Any], str]) -> Column:
    return Column(
        header, lambda row: NONE if row[name] is None else text(row[name]), value=lambda row: row[name]
    )


def _cell(column: Column, row: Row) -> TableCell:
    text = column.text(row)
    if column.value is None:
        return TableCell(text, column.numeric, text)
    value = column.value(row)
    return TableCell(text, column.numeric, "" if value is None else repr(value))
