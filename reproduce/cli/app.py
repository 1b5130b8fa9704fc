"""The ``reproduce`` command line.

Exit status: 0 on success, 1 if trials failed or a check did not hold, 2 on bad input.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reproduce.cli.bench import bench
from reproduce.cli.options import (
    ACCEPT,
    ADDRESS,
    ARTIFACTS,
    DATA_DIR,
    MODEL_OPTIONS,
    PATH,
    POSITIVE,
    Commands,
    load,
    takes_space,
    with_options,
)
from reproduce.process import set_environment

if TYPE_CHECKING:
    from reproduce.plan.search_space import SearchSpace


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="lfreeze")
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
@click.option(
    "--gpus-per-trial",
    default="auto",
    show_default=True,
    help="Share of a GPU for every trial, or auto for the one that each is predicted to need.",
)
@click.option("--what-fits", is_flag=True, help="Skip trials that do not fit the GPUs, and run the others.")
@click.option("--max-concurrent", type=click.IntRange(min=1), help="Run at most this many trials at once.")
@click.option("--keep-going/--fail-fast", default=True, help="Continue or stop after a failed trial.")
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
    **options: Any,
) -> None:
    """Run every trial of SPACE that is not finished yet, then write the report.

    SPACE is a name in search_spaces/ (default: embedded) or a path to a .toml file. Running the command
    again continues where it stopped. Exit status: 0; 1 if trials failed or are missing; 2 on bad input;
    130 after Ctrl-C and 143 after SIGTERM. Finished trials are kept in every case.

    \b
    Example:
      reproduce run embedded --strategies ALL,BOT25,BOT50 --seeds 42,43
      reproduce run efficiency --weights random --models gemma-2b
    """
    from reproduce.cli.commands import run_space
    from reproduce.run.gpu_share import parse_share
    from reproduce.run.pipeline import RunOptions

    run_options = RunOptions(
        space,
        artifacts or Path("artifacts") / space.name,
        dashboard=(dashboard_host, dashboard_port) if dashboard else None,
        gpu_share=parse_share(gpus_per_trial),
        fail_fast=not keep_going,
        **options,
    )
    sys.exit(run_space(run_options, reports=reports))


@main.command(short_help="List the trials of a space and their predicted cost.")
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
@DATA_DIR
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def plan(
    space: SearchSpace,
    gpu: str | None,
    gpu_memory: float | None,
    tflops: float | None,
    calibrate: bool,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """List every trial of SPACE with its predicted memory, GPU share and time. No trial is started.

    \b
    Example:
      reproduce plan paper --gpu a100-40
      reproduce plan embedded --calibrate
    """
    from reproduce.cli.console import print_plan

    print_plan(space, gpu_memory, tflops, as_json, data_dir, gpu, calibrate)


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
def doctor(space: SearchSpace, artifacts: Path | None, data_dir: Path | None) -> None:
    """Check GPU, driver, memory, shm, disk, hub and models for SPACE; each problem says how to fix it.

    Exit status 1 if this machine cannot run the space.

    \b
    Example:
      reproduce doctor paper
    """
    from reproduce.run.doctor import examine

    sys.exit(examine(space, artifacts or Path("artifacts") / space.name, data_dir))


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


@main.command(short_help="Check a folder and compare it with a reference.")
@click.argument("folder", type=PATH)
@click.option(
    "--against",
    "reference",
    type=PATH,
    help="Artifact folder, or published folder, to compare with.  [default: the published results of "
    "FOLDER's space, if there are any]",
)
@click.option("--partial", is_flag=True, help="Accept that FOLDER lacks trials of the --against folder.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of sentences.")
def verify(folder: Path, reference: Path | None, partial: bool, as_json: bool) -> None:
    """Check that FOLDER is complete and homogeneous, and that its numbers match the reference's.

    On equal hardware and versions the numbers must be bitwise equal, otherwise within the stated
    tolerances. Exit status 1 if a check fails.

    \b
    Example:
      reproduce verify artifacts/embedded
      reproduce verify artifacts/paper --against a-colleagues-folder
    """
    from reproduce.cli.commands import verify_folder

    sys.exit(verify_folder(folder, reference, partial, as_json))


@main.command(short_help="Write the trials of a folder into a few files.")
@click.argument("folder", type=PATH)
@click.argument("out", type=PATH)
@click.option("--with-steps", "steps", is_flag=True, help="Include every training step, for loss curves.")
@click.option("--with-predictions", "predictions", is_flag=True, help="Include every prediction.")
@click.option("--incomplete", is_flag=True, help="Publish even if trials have no result.")
def publish(folder: Path, out: Path, **options: bool) -> None:
    """Write the trials of FOLDER into trials.parquet in the new folder OUT, to archive or share.

    Every command that reads an artifact folder also reads a published one.

    \b
    Example:
      reproduce publish artifacts/embedded-full published/embedded-full
    """
    from reproduce.cli.commands import publish_folder

    publish_folder(folder, out, **options)


@main.command(short_help="Run one trial without Ray.")
@click.option("--strategy", required=True, help="Strategy, such as ALL, LoRA, BOT25, ADT-L50.")
@click.option("--model", required=True, help="Model: a name such as tiny-gemma, a hub id, or a folder.")
@click.option("--task", required=True, help="Task, such as tiny-rte.")
@click.option("--seed", default=42, show_default=True)
@click.option("--space", default="embedded", show_default=True, help="Space that provides the recipe.")
@with_options(MODEL_OPTIONS)
@DATA_DIR
@click.option("--json", "as_json", is_flag=True, help="Print the whole trial row as JSON.")
def trial(
    strategy: str,
    model: str,
    task: str,
    seed: int,
    space: str,
    data_dir: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Run one trial in this process, without Ray, and print its row.

    \b
    Example:
      reproduce trial --strategy BOT25 --model tiny-gemma --task tiny-rte --seed 42
    """
    from reproduce.cli.commands import run_one

    one = {"models": [model], "tasks": [task], "strategies": [strategy], "seeds": [str(seed)]}
    sys.exit(run_one(load(space, one, options), data_dir, as_json))


main.add_command(bench)
