"""The predicted cost of a space and the state of a folder, printed on the terminal."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

from lfreeze.errors import InputError
from reproduce.plan.search_space import SearchSpace
from reproduce.process import FAILED, OK
from reproduce.store.artifacts import FolderState, read_folder
from reproduce.verify import Check

_LISTED = 20  # missing or skipped trials that are named one by one


def print_checks(checks: Sequence[Check]) -> None:
    """Print one sentence for each check, and its details below it."""
    words = {True: "ok", False: "FAILED", None: "note"}
    for check in checks:
        print(f"{words[check.passed]:6}  {check.name}: {check.sentence}")
        for detail in check.details:
            print(f"          {detail}")


def print_plan(
    space: SearchSpace,
    gpu_memory_gib: float | None,
    tflops: float | None,
    as_json: bool,
    data_dir: Path | None = None,
    gpu: str | None = None,
    measure: bool = False,
) -> None:
    """Print every trial of a space with its predicted cost, and the totals.

    Args:
        measure: take the rate from a few steps on this machine's device.
    """
    from reproduce.cli.plan_classes import classes_as_json, print_classes, shown_share
    from reproduce.plan.cost import GIB, assumptions, plan_space, totals
    from reproduce.plan.gpu_classes import fits
    from reproduce.plan.lengths import known_lengths
    from reproduce.report.analysis.decidable import summary, undecidable
    from reproduce.run.progress import clock

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
    table = Table(box=None, header_style="bold")
    for column in ("model", "task", "strategy"):
        table.add_column(column, no_wrap=True)
    for column in (
        "seed",
        "frozen",
        "static GiB",
        "training GiB",
        "after switch",
        "host GiB",
        "GPU share",
        "time",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for t in trials:
        table.add_row(
            t.factors.model,
            t.factors.task,
            t.factors.strategy,
            str(t.factors.seed),
            f"{t.frozen_layers}/{t.n_layers}",
            f"{t.static_bytes / GIB:.3f}",
            f"{t.training_bytes / GIB:.3f}",
            f"{t.after_switch_bytes / GIB:.3f}" if t.after_switch_bytes else "",
            f"{t.host_bytes / GIB:.1f}",
            shown_share(t),
            clock(t.seconds),
        )
    Console(width=max(Console().width, 120)).print(table)
    total = totals(trials)
    print(
        f"{space.name}: {len(trials)} trials, {total['device_hours']:.1f} device hours at "
        f"{assumed.flops_per_second / 1e12:.3g} TFLOP/s ({assumed.rate_source}), largest peak "
        f"{total['peak_bytes'] / GIB:.2f} GiB, largest host memory of a worker {total['host_bytes'] / GIB:.1f} GiB; "
        f"shares are of a GPU with {assumed.gpu_memory_bytes / GIB:g} GiB (--gpu, --gpu-memory). No trial was started."
    )
    print_classes(space, trials, assumed.gpu_memory_bytes / GIB)
    print("\n".join(summary(space, too_large)))


def print_status(root: Path, timing: bool) -> int:
    """Print the state of a folder; status 1 if a trial failed or a file is damaged."""
    progress = read_folder(root)
    running = set(progress.running)
    missing = [w for w in progress.missing if str(w.factors) not in running]
    skipped = progress.skipped
    print(
        f"{root}: {progress.done} done, {len(running)} running, {progress.failed.height} failed, "
        + (f"{skipped.height} skipped, " if skipped.height else "")
        + f"{len(missing)} missing, of {len(progress.listed)}"
        + ("" if progress.live else "; no sweep is writing to it")
    )
    for name in sorted(running):
        print(f"  running  {name}")
    print_failures(progress.failed)
    print_failures(skipped.head(_LISTED))
    if skipped.height > _LISTED:
        print(f"  skipped  ... and {skipped.height - _LISTED} more")
    for damaged in progress.table.damaged:
        print(f"  damaged  {damaged.path}: {damaged.reason}")
    for wanted in missing[:_LISTED]:
        print(f"  missing  {wanted.factors}")
    if len(missing) > _LISTED:
        print(f"  missing  ... and {len(missing) - _LISTED} more")
    if timing:
        _print_timing(progress)
    return FAILED if progress.failed.height or progress.table.damaged else OK


def print_failures(failed: pl.DataFrame) -> None:
    """Print one line for each trial without a result: its status, factors and error."""
    for row in failed.sort("model", "task", "strategy", "seed").to_dicts():
        name = f"{row['model']}/{row['task']}/{row['strategy']}/seed{row['seed']}"
        print(f"  {row['status']:7}  {name}: {row['error_type']}: {row['error_message']}")


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
        table = Table(title=f"{title}: {chosen.height}", box=None, title_justify="left")
        table.add_column("seconds per trial")
        for column in ("median", "mean", "largest"):
            table.add_column(column, justify="right")
        for label, column in parts.items():
            values = chosen[column].drop_nulls().to_list()
            if values:
                shown = (statistics.median(values), statistics.mean(values), max(values))
                table.add_row(label, *(f"{value:.3f}" for value in shown))
        Console().print(table)
