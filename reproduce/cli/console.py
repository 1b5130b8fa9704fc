"""The predicted cost of a space and the state of a folder, printed on the terminal."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from lfreeze.errors import InputError
from reproduce.cli.trial_groups import grouped
from reproduce.plan.search_space import SearchSpace
from reproduce.plan.spec import Factors
from reproduce.process import FAILED, OK
from reproduce.store.artifacts import FolderState, read_folder
from reproduce.store.grid import grid_names, grid_points
from reproduce.terminal import PlainTable, say, show
from reproduce.verify import Check

_LISTED = 20  # lines for missing or skipped trials


def print_checks(checks: Sequence[Check]) -> None:
    """Print one sentence for each check, and its details below it."""
    words = {True: "ok", False: "FAILED", None: "note"}
    for check in checks:
        say(f"{words[check.passed]:6}  {check.name}: {check.sentence}", indent=8)
        for detail in check.details:
            say(f"          {detail}")


def print_plan(
    space: SearchSpace,
    gpu_memory_gib: float | None,
    tflops: float | None,
    as_json: bool,
    data_dir: Path | None = None,
    gpu: str | None = None,
    measure: bool = False,
    every: bool = False,
) -> None:
    """Print the predicted cost of a space by model and strategy, and the totals.

    Args:
        measure: take the rate from a few steps on this machine's device.
        every: list every trial.
    """
    from reproduce.cli.plan_classes import classes_as_json, print_classes
    from reproduce.cli.plan_tables import print_groups, print_trials
    from reproduce.plan.cost import GIB, assumptions, plan_space, totals
    from reproduce.plan.gpu_classes import fits
    from reproduce.plan.lengths import known_lengths
    from reproduce.report.analysis.decidable import summary, undecidable

    assumed = assumptions(space, gpu_memory_gib, tflops, gpu)
    if measure:
        from reproduce.run.calibrate import calibrate

        if tflops is not None:
            raise InputError("--calibrate measures the rate that --tflops sets: give one of them")
        measured = calibrate(space)
        assumed = dataclasses.replace(
            assumed, flops_per_second=measured.flops_per_second, rate_source=measured.words
        )
    lengths = known_lengths(space, data_dir)
    trials = plan_space(space, assumed, lengths)
    too_large = {trial.factors for trial in trials if not fits(trial)}
    if as_json:
        listed = [dataclasses.asdict(trial) for trial in trials]
        for row, t in zip(listed, trials, strict=True):
            row["factors"] = t.factors.cell | ({"grid": dict(t.factors.grid)} if t.factors.grid else {})
        rows = [{**row.pop("factors"), **row, "fits": fits(t)} for row, t in zip(listed, trials, strict=True)]
        claims = {"claim_obstacles": undecidable(space, too_large)}
        classes = {"gpu_classes": classes_as_json(space, trials)}
        values = {
            **dataclasses.asdict(assumed),
            **claims,
            **classes,
            "totals": totals(trials),
            "trials": rows,
        }
        print(json.dumps(values, indent=1))
        return
    (print_trials if every else print_groups)(trials)
    total, memory = totals(trials), assumed.gpu_memory_bytes / GIB
    say(
        f"{space.name}: {len(trials):,} trials, {total['device_hours']:.1f} device hours at "
        f"{assumed.flops_per_second / 1e12:.3g} TFLOP/s ({assumed.rate_source}), largest peak "
        f"{total['peak_bytes'] / GIB:.2f} GiB, largest host memory of a worker {total['host_bytes'] / GIB:.1f} GiB; "
        f"shares are of a GPU with {memory:g} GiB (--gpu, --gpu-memory). No trial was started."
        + ("" if every else " Memory and share are the largest of each line; --all lists every trial.")
    )
    print_classes(space, trials, memory)
    for line in summary(space, too_large):
        say(line, indent=2)


def print_status(root: Path, timing: bool) -> int:
    """Print the state of a folder; status 1 if a trial failed or a file is damaged."""
    progress = read_folder(root)
    running = set(progress.running)
    missing = [w for w in progress.missing if str(w.factors) not in running]
    skipped = progress.skipped
    unlisted = progress.table.frame.height - progress.rows.height
    say(
        f"{root}: {progress.done:,} done, {len(running)} running, {progress.failed.height:,} failed, "
        + (f"{skipped.height:,} skipped, " if skipped.height else "")
        + f"{len(missing):,} missing, of {len(progress.listed):,}"
        + (f"; {unlisted:,} more that its list, sweep.json, lacks" if unlisted else "")
        + ("" if progress.live else "; no sweep is writing to it")
    )
    for name in sorted(running):
        say(f"  running  {name}", indent=9)
    print_failures(progress.failed)
    print_failures(skipped.head(_LISTED))
    if skipped.height > _LISTED:
        say(f"  skipped  ... and {skipped.height - _LISTED:,} more")
    for damaged in progress.table.damaged:
        say(f"  damaged  {damaged.path}: {damaged.reason}", indent=9)
    listed = [trial.factors for trial in progress.listed]
    groups = grouped([trial.factors for trial in missing], listed)
    for words, number in groups[:_LISTED]:
        say(f"  missing  {words}: {number:,} trial{'s' * (number > 1)}", indent=9)
    if more := sum(number for _, number in groups[_LISTED:]):
        say(f"  missing  ... and {more:,} trials more")
    if timing:
        _print_timing(progress)
    return FAILED if progress.failed.height or progress.table.damaged else OK


def print_failures(failed: pl.DataFrame) -> None:
    """Print one line for each trial without a result: its status, factors and error."""
    failed = failed.sort("model", "task", "strategy", "seed")
    points = grid_points(failed, grid_names(failed))
    for row, point in zip(failed.iter_rows(named=True), points, strict=True):
        name = Factors(row["model"], row["task"], row["strategy"], row["seed"], point)
        say(f"  {row['status']:7}  {name}: {row['error_type']}: {row['error_message']}", indent=9)


def _print_timing(progress: FolderState) -> None:
    """Print seconds per trial by part; a worker's first trial loads the model and is listed separately."""
    rows = progress.rows.filter(pl.col("status") == "ok").with_columns(
        overhead=pl.col("setup_seconds") + pl.col("gap_seconds").fill_null(0.0)
    )
    parts = {
        "training": "train_seconds",
        "evaluation": "eval_seconds",
        "set up and clean up": "setup_seconds",
        "between trials (Ray)": "gap_seconds",
        "overhead: the previous two": "overhead",
    }
    for title, first in (("warm trials", False), ("first trials of a worker", True)):
        chosen = rows.filter((pl.col("worker_trial_index") == 0) == first)
        if not chosen.height:
            continue
        table = PlainTable(title=f"{title}: {chosen.height}", box=None, title_justify="left")
        table.add_column("seconds per trial")
        for column in ("median", "mean", "largest"):
            table.add_column(column, justify="right")
        for label, column in parts.items():
            values = chosen[column].drop_nulls().to_list()
            if values:
                shown = (statistics.median(values), statistics.mean(values), max(values))
                table.add_row(label, *(f"{value:.3f}" for value in shown))
        show(table)
