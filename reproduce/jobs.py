"""What each command does, once its arguments are read."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

from lfreeze.errors import InputError
from reproduce.artifacts import Progress, check_folder, prepare_folder, read_progress, writing
from reproduce.inputs import find_inputs, trial_specs
from reproduce.search_space import SearchSpace, recipe_values

OK, FAILED = 0, 1
_LISTED = 20  # missing trials that are named one by one


def run_space(
    space: SearchSpace,
    root: Path,
    *,
    data_dir: Path | None,
    model_paths: Mapping[str, Path],
    address: str | None,
    gpus_per_trial: str,
    max_concurrent: int | None,
    fail_fast: bool,
) -> int:
    """Run what is missing of a space, then report; the exit status."""
    share = _parse_share(gpus_per_trial)
    inputs = find_inputs(space, data_dir, model_paths)
    specs = trial_specs(space, inputs)
    check_folder(root)
    with writing(root):
        prepare_folder(root, specs, recipe_values(space.recipe))
        progress = read_progress(root)
        rows = {row["run_id"]: row for row in progress.rows.select("run_id", "status", "attempt").to_dicts()}
        open_specs = [s for s in specs if rows.get(s.run_id, {}).get("status") != "ok"]
        finished = len(specs) - len(open_specs)
        if not open_specs:
            print(f"All {len(specs)} trials are finished already; nothing to run.")
            _report({root: progress}, root / "report", only_if_missing=True)
            return OK
        print(
            f"{space.name}: {len(specs)} trials, {finished} finished already, {len(open_specs)} to run; "
            f"results in {root}"
        )
        from reproduce.sweep import Resources, run_sweep

        gpus = _fitting_share(space) if share is None else share
        outcome = run_sweep(
            open_specs,
            inputs,
            root,
            resources=Resources(space.recipe.cpu_threads, gpus, max_concurrent),
            attempts={s.run_id: rows.get(s.run_id, {}).get("attempt", 0) + 1 for s in open_specs},
            finished_before=finished,
            address=address,
            fail_fast=fail_fast,
            model_paths=model_paths,
        )
        progress = read_progress(root)
        if progress.table.frame.height:
            _report({root: progress}, root / "report")
    asked = {s.run_id for s in specs}
    missing = [w for w in progress.missing if w.run_id in asked]
    for problem in outcome.problems:
        print(f"problem: {problem}")
    _print_failures(progress.failed.filter(pl.col("run_id").is_in(list(asked))))
    if missing:
        print(f"{len(missing)} trials have no result; the same command runs them.")
    return FAILED if outcome.failed or outcome.problems or missing else OK


def _parse_share(text: str) -> float | None:
    """The part of a GPU asked for, or None where it is to be worked out."""
    if text == "auto":
        return None
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < math.inf or (share > 1 and share != int(share)):
        raise InputError(
            f"--gpus-per-trial {text!r} is not auto, a share of a GPU, or a whole number of GPUs"
        )
    return share


def _fitting_share(space: SearchSpace) -> float:
    """The part of the smallest GPU here that fits the space's largest trial; 0 without a GPU."""
    import torch

    from reproduce.planner import largest_share

    if not torch.cuda.is_available():
        return 0.0
    memory = min(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))
    share = largest_share(space, memory)
    if share > 1:
        raise InputError(
            f"the largest trial of {space.name} needs {share:.1f} times this GPU's {memory / 2**30:.0f} GiB of memory"
        )
    return share


def run_one(space: SearchSpace, data_dir: Path | None, model_paths: Mapping[str, Path], as_json: bool) -> int:
    """Run the only trial of a space in this process and print its row; the exit status."""
    inputs = find_inputs(space, data_dir, model_paths)
    (spec,) = trial_specs(space, inputs)
    from reproduce.store import trial_frame
    from reproduce.trial import TrialWorker

    result = TrialWorker().run(spec, inputs.checkpoints[spec.cell.model], inputs.data[spec.cell.task])
    row = trial_frame(result.row).to_dicts()[0]
    if as_json:
        print(json.dumps(row, default=str, indent=1))
    else:
        table = Table(show_header=False, box=None)
        for name, value in row.items():
            if name != "null_reasons" and value is not None:
                table.add_row(name, str(value))
        Console().print(table)
    return OK if row["status"] == "ok" else FAILED


def print_plan(space: SearchSpace, gpu_memory_gib: float, tflops: float | None, as_json: bool) -> None:
    """Print every trial of a space with its predicted cost, and the totals."""
    from reproduce.planner import GIB, assumptions, plan_space, totals
    from reproduce.progress import clock

    assumed = assumptions(space, gpu_memory_gib, tflops)
    trials = plan_space(space, assumed)
    if as_json:
        listed = [dataclasses.asdict(t) for t in trials]
        print(
            json.dumps({**dataclasses.asdict(assumed), "totals": totals(trials), "trials": listed}, indent=1)
        )
        return
    table = Table(box=None, header_style="bold")
    for column in ("model", "task", "strategy"):
        table.add_column(column, no_wrap=True)
    for column in ("seed", "frozen", "static GiB", "training GiB", "GPU share", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    for t in trials:
        table.add_row(
            t.model,
            t.task,
            t.strategy,
            str(t.seed),
            f"{t.frozen_layers}/{t.n_layers}",
            f"{t.static_bytes / GIB:.3f}",
            f"{t.training_bytes / GIB:.3f}",
            f"{t.gpu_share:.4f}",
            clock(t.seconds),
        )
    Console(width=max(Console().width, 110)).print(table)
    total = totals(trials)
    print(
        f"{space.name}: {len(trials)} trials, {total['device_hours']:.1f} device hours at an assumed "
        f"{assumed.flops_per_second / 1e12:g} TFLOP/s (--tflops), largest peak "
        f"{total['peak_bytes'] / GIB:.2f} GiB; shares are of a GPU with {gpu_memory_gib:g} GiB "
        "(--gpu-memory). Nothing was started."
    )


def print_status(root: Path, timing: bool) -> int:
    """Print what a folder holds; status 1 if a trial failed or a file is damaged."""
    progress = read_progress(root)
    running = set(progress.running)
    missing = [w for w in progress.missing if str(w.cell) not in running]
    print(
        f"{root}: {progress.done} done, {len(running)} running, {progress.failed.height} failed, "
        f"{len(missing)} missing, of {len(progress.wanted)}"
        + ("" if progress.live else "; no sweep is writing to it")
    )
    for cell in sorted(running):
        print(f"  running  {cell}")
    _print_failures(progress.failed)
    for damaged in progress.table.damaged:
        print(f"  damaged  {damaged.path}: {damaged.reason}")
    for wanted in missing[:_LISTED]:
        print(f"  missing  {wanted.cell}")
    if len(missing) > _LISTED:
        print(f"  missing  ... and {len(missing) - _LISTED} more")
    if timing:
        _print_timing(progress)
    return FAILED if progress.failed.height or progress.table.damaged else OK


def write_report(roots: Sequence[Path], out: Path) -> None:
    _report({root: read_progress(root) for root in roots}, out)


def _report(folders: Mapping[Path, Progress], out: Path, *, only_if_missing: bool = False) -> None:
    from reproduce.report import build

    page = out / "report.html"
    if not (only_if_missing and page.is_file()):
        missing = [dataclasses.asdict(w.cell) for progress in folders.values() for w in progress.missing]
        summary = build(list(folders), out, command=_command_line(), missing=missing)
        for sentence in summary.headlines:
            print(sentence)
    print(f"Report: {page}")


def _command_line() -> str:
    """The command as typed, without the folders that would name a person or a machine."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return shlex.join(["reproduce", *words])


def _print_failures(failed: pl.DataFrame) -> None:
    for row in failed.sort("model", "task", "strategy", "seed").to_dicts():
        cell = f"{row['model']}/{row['task']}/{row['strategy']}/seed{row['seed']}"
        print(f"  {row['status']:7}  {cell}: {row['error_type']}: {row['error_message']}")


def _print_timing(progress: Progress) -> None:
    """Seconds per trial by part; a worker's first trial loads the model and is shown apart."""
    rows = progress.rows.filter(pl.col("status") == "ok").with_columns(
        overhead=pl.col("setup_seconds") + pl.col("gap_seconds").fill_null(0.0)
    )
    parts = {
        "training": "train_seconds",
        "evaluation": "eval_seconds",
        "set up and clean up": "setup_seconds",
        "between trials (Ray)": "gap_seconds",
        "overhead: the last two": "overhead",
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
