"""The ``reproduce`` command line.

Exit status: 0 on success, 1 if trials failed or a check did not hold, 2 on bad input.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reproduce.cli.bench import bench
from reproduce.cli.folders import merge, publish, verify
from reproduce.cli.init import init
from reproduce.cli.options import (
    ACCEPT,
    ADDRESS,
    ARTIFACTS,
    CANARY,
    DATA_DIR,
    ENGINE,
    GPUS_PER_TRIAL,
    LOG_TO,
    MODEL_OPTIONS,
    PATH,
    POSITIVE,
    SHARD,
    Commands,
    load,
    print_version,
    takes_space,
    with_options,
)
from reproduce.process import set_environment

if TYPE_CHECKING:
    from reproduce.plan.search_space import SearchSpace


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=print_version,
    help="Show the version and the commit of the code, and exit.",
)
def main() -> None:
    """Selective layer freezing: the paper's experiment, from a grid of trials to a report."""
    set_environment()


@main.command(short_help="Run the trials of a space, then write the report.")
@takes_space
@ARTIFACTS
@DATA_DIR
@ACCEPT
@ADDRESS
@click.option("--dashboard", is_flag=True, help="Show Ray's dashboard while the sweep runs.")
@click.option(
    "--dashboard-host", default="127.0.0.1", show_default=True, help="Address that the dashboard listens on."
)
@click.option("--dashboard-port", type=click.IntRange(1, 65535), default=8265, show_default=True)
@GPUS_PER_TRIAL
@click.option("--what-fits", is_flag=True, help="Skip trials that do not fit the GPUs, and run the others.")
@click.option("--max-concurrent", type=click.IntRange(min=1), help="Run at most this many trials at once.")
@click.option("--keep-going/--fail-fast", default=True, help="Continue or stop after a failed trial.")
@ENGINE
@SHARD
@LOG_TO
@CANARY
@click.option("--report/--no-report", "reports", default=True, help="Write the report after the last trial.")
def run(
    space: SearchSpace,
    artifacts: Path | None,
    gpus_per_trial: str,
    keep_going: bool,
    reports: bool,
    dashboard: bool,
    dashboard_host: str,
    dashboard_port: int,
    shard: str | None,
    **options: Any,
) -> None:
    """Run every trial of SPACE that is not finished yet, then write the report.

    SPACE is a name in search_spaces/ (default: embedded) or a path to a .toml file. Running the command
    again continues where it stopped. Exit status: 0; 1 if trials failed or are missing; 2 on bad input;
    130 after Ctrl-C, 143 after SIGTERM and 129 after SIGHUP. Finished trials are kept in every case.

    \b
    Example:
      reproduce run embedded --strategies ALL,BOT25,BOT50 --seeds 42,43
      reproduce run efficiency --weights random --models gemma-2b
      reproduce run embedded --engine inline --shard 3/8 --artifacts artifacts/shard-3
    """
    from reproduce.cli.commands import run_space
    from reproduce.plan.shards import parse_shard
    from reproduce.run.gpu_share import parse_share
    from reproduce.run.pipeline import RunOptions

    run_options = RunOptions(
        space,
        artifacts or Path("artifacts") / space.name,
        dashboard=(dashboard_host, dashboard_port) if dashboard else None,
        gpu_share=parse_share(gpus_per_trial),
        fail_fast=not keep_going,
        shard=parse_shard(shard),
        **options,
    )
    sys.exit(run_space(run_options, reports=reports))


@main.command(short_help="Predict the cost of a space.")
@takes_space
@click.option(
    "--gpu",
    help="GPU that the plan assumes, such as h100, a100-40 or rtx-4090.  [default: h100; for fp32 a CPU]",
)
@click.option("--gpu-memory", type=POSITIVE, help="Memory of that GPU in GiB, if it is not the usual one.")
@click.option("--tflops", type=POSITIVE, help="Sustained TFLOP/s that predicted times assume.")
@click.option(
    "--calibrate",
    is_flag=True,
    help="Time a few steps of the smallest model, with random weights, on this machine's device, and assume its rate.",
)
@click.option("--all", "every", is_flag=True, help="List every trial, not each model and strategy.")
@DATA_DIR
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every trial, instead of tables.")
def plan(
    space: SearchSpace,
    gpu: str | None,
    gpu_memory: float | None,
    tflops: float | None,
    calibrate: bool,
    every: bool,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Predict the memory, GPU share and time of SPACE by model and strategy. No trial is started.

    \b
    Example:
      reproduce plan paper --gpu a100-40
      reproduce plan embedded --calibrate
    """
    from reproduce.cli.console import print_plan

    print_plan(space, gpu_memory, tflops, as_json, data_dir, gpu, calibrate, every)


@main.command(short_help="Download the models and data of a space.")
@takes_space
@ARTIFACTS
@DATA_DIR
@ACCEPT
@ADDRESS
def fetch(
    space: SearchSpace,
    artifacts: Path | None,
    data_dir: Path | None,
    accept_inputs: bool,
    address: str | None,
) -> None:
    """Download the models and data of SPACE into the hub's cache, and write the input lock, inputs.lock.toml.

    Afterwards every command works with HF_HUB_OFFLINE=1. A later run refuses files that differ from the
    input lock.

    \b
    Example:
      reproduce fetch paper --models phi-2 --tasks rte,cb
    """
    from reproduce.cli.commands import fetch_space

    fetch_space(space, artifacts or Path("artifacts") / space.name, data_dir, accept_inputs, address)


@main.command(short_help="Check whether this machine can run a space.")
@takes_space
@ARTIFACTS
@DATA_DIR
@GPUS_PER_TRIAL
@click.option(
    "--gpu-memory",
    type=POSITIVE,
    help="Memory in GiB of the GPU that will run the space, where this machine has none, such as a login node.",
)
def doctor(
    space: SearchSpace,
    artifacts: Path | None,
    data_dir: Path | None,
    gpus_per_trial: str,
    gpu_memory: float | None,
) -> None:
    """Check GPU, driver, memory, limits, disk, hub and models for SPACE; each problem says how to fix it.

    Exit status 1 if this machine cannot run the space.

    \b
    Example:
      reproduce doctor paper
      reproduce doctor paper --gpu-memory 80
    """
    from reproduce.run.doctor import examine
    from reproduce.run.gpu_share import parse_share

    root = artifacts or Path("artifacts") / space.name
    sys.exit(examine(space, root, data_dir, gpu_memory, parse_share(gpus_per_trial)))


@main.command(short_help="Show the trials of an artifact folder.")
@click.argument("folder", type=PATH)
@click.option("--timing", is_flag=True, help="Also show how the time of a trial is spent.")
def status(folder: Path, timing: bool) -> None:
    """Show the finished, running, failed and missing trials of an artifact FOLDER, with reasons.

    \b
    Example:
      reproduce status artifacts/embedded --timing
    """
    from reproduce.cli.console import print_status

    sys.exit(print_status(folder, timing))


@main.command(short_help="Write the report of artifact folders.")
@click.argument("folders", type=PATH, nargs=-1, required=True)
@click.option("--out", type=PATH, help="Folder for the report.  [default: report/ in the first folder]")
def report(folders: tuple[Path, ...], out: Path | None) -> None:
    """Write figures, tables and one HTML page from one or more artifact FOLDERS.

    \b
    Example:
      reproduce report artifacts/embedded
    """
    from reproduce.cli.commands import write_report

    write_report(folders, out or folders[0] / "report")


@main.command(short_help="Run one trial without Ray.")
@click.option("--strategy", required=True, help="Strategy, such as ALL, LoRA, BOT25, ADT-L50.")
@click.option("--model", required=True, help="Model: a name such as tiny-gemma, a hub id, or a folder.")
@click.option("--task", required=True, help="Task, such as tiny-rte.")
@click.option("--seed", default=42, show_default=True)
@click.option("--space", default="embedded", show_default=True, help="Space that provides the recipe.")
@with_options(MODEL_OPTIONS)
@DATA_DIR
@click.option(
    "--artifacts", type=PATH, help="Folder that the trial's files are written to, as those of a sweep."
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole trial row as JSON.")
def trial(
    strategy: str,
    model: str,
    task: str,
    seed: int,
    space: str,
    data_dir: Path | None,
    artifacts: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Run one trial in this process, without Ray, and print its result.

    \b
    Example:
      reproduce trial --strategy BOT25 --model tiny-gemma --task tiny-rte --seed 42
    """
    from reproduce.cli.commands import run_one

    one = {"models": [model], "tasks": [task], "strategies": [strategy], "seeds": [str(seed)]}
    sys.exit(run_one(load(space, one, options), data_dir, as_json, artifacts))


for command in (init, bench, verify, publish, merge):
    main.add_command(command)
