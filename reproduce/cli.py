"""The ``reproduce`` command: exit status 0 on success, 1 when trials failed, 2 on bad input."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from lfreeze.errors import InputError

_PATH = click.Path(path_type=Path)
_POSITIVE = click.FloatRange(min=0, min_open=True)


class _Commands(click.Group):
    """Prints bad input as one sentence, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(2)


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="lfreeze")
def main() -> None:
    """Selective layer freezing: the paper's experiment, from a grid of trials to a report."""


def _listed(text: str | None) -> list[str] | None:
    return [item for item in text.split(",") if item.strip()] if text is not None else None


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise InputError(f"{option} {text!r} is not of the form NAME=VALUE")
    return {name.strip(): value.strip() for name, value in (text.split("=", 1) for text in texts)}


def _model_paths(texts: Sequence[str]) -> dict[str, Path]:
    from lfreeze.models import get_model

    return {
        get_model(name).name: Path(folder).resolve() for name, folder in _pairs("--model-path", texts).items()
    }


def _space_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that choose a space and narrow it."""
    for decorator in reversed(
        [
            click.argument("space", default="embedded"),
            click.option("--models", help="Comma-separated models instead of the space's."),
            click.option("--tasks", help="Comma-separated tasks instead of the space's."),
            click.option("--strategies", help="Comma-separated strategies, such as ALL,BOT25,ADT-L50."),
            click.option("--seeds", help="Comma-separated seeds instead of the space's."),
            click.option(
                "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a recipe value."
            ),
        ]
    ):
        command = decorator(command)
    return command


def _load(space: str, overrides: Sequence[str], **axes: str | None) -> Any:
    from reproduce.search_space import load_space

    narrow = {axis: items for axis, text in axes.items() if (items := _listed(text)) is not None}
    return load_space(space, narrow, _pairs("--set", overrides))


@main.command(short_help="Run the trials of a space, then write the report.")
@_space_options
@click.option("--artifacts", type=_PATH, help="Folder for the results.  [default: artifacts/<space>]")
@click.option("--data-dir", type=_PATH, help="Folder with the benchmarks' own files, for the real tasks.")
@click.option("--model-path", "model_paths", multiple=True, metavar="NAME=DIR", help="A model's local copy.")
@click.option("--address", help="Join the Ray cluster at this address instead of starting one here.")
@click.option(
    "--gpus-per-trial", default="auto", show_default=True, help="Share of a GPU for each trial, or auto."
)
@click.option("--max-concurrent", type=click.IntRange(min=1), help="Run at most this many trials at once.")
@click.option("--keep-going/--fail-fast", default=True, help="After a failed trial, go on or stop.")
def run(
    space: str,
    models: str | None,
    tasks: str | None,
    strategies: str | None,
    seeds: str | None,
    overrides: Sequence[str],
    artifacts: Path | None,
    data_dir: Path | None,
    model_paths: Sequence[str],
    address: str | None,
    gpus_per_trial: str,
    max_concurrent: int | None,
    keep_going: bool,
) -> None:
    """Run every trial of SPACE that is not finished yet, then write the report.

    SPACE is a name in search_spaces/ (default: embedded) or a path to a .toml file. Running it again
    goes on where it stopped.

    \b
    Example:
      reproduce run embedded --strategies ALL,BOT25,BOT50 --seeds 42,43
    """
    from reproduce.jobs import run_space

    chosen = _load(space, overrides, models=models, tasks=tasks, strategies=strategies, seeds=seeds)
    sys.exit(
        run_space(
            chosen,
            artifacts or Path("artifacts") / chosen.name,
            data_dir=data_dir,
            model_paths=_model_paths(model_paths),
            address=address,
            gpus_per_trial=gpus_per_trial,
            max_concurrent=max_concurrent,
            fail_fast=not keep_going,
        )
    )


@main.command(short_help="List the trials of a space and their predicted cost.")
@_space_options
@click.option(
    "--gpu-memory",
    type=_POSITIVE,
    default=80.0,
    show_default=True,
    help="GiB of the GPU that the shares are for.",
)
@click.option("--tflops", type=_POSITIVE, help="Sustained TFLOP/s to predict times with.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def plan(
    space: str,
    models: str | None,
    tasks: str | None,
    strategies: str | None,
    seeds: str | None,
    overrides: Sequence[str],
    gpu_memory: float,
    tflops: float | None,
    as_json: bool,
) -> None:
    """List every trial of SPACE with its predicted memory, GPU share and time. Starts nothing.

    \b
    Example:
      reproduce plan paper --gpu-memory 24
    """
    from reproduce.jobs import print_plan

    chosen = _load(space, overrides, models=models, tasks=tasks, strategies=strategies, seeds=seeds)
    print_plan(chosen, gpu_memory, tflops, as_json)


@main.command(short_help="Show what an artifact folder holds.")
@click.argument("folder", type=_PATH)
@click.option("--timing", is_flag=True, help="Also show where the time of a trial goes.")
def status(folder: Path, timing: bool) -> None:
    """Show what an artifact FOLDER holds: done, running, failed and missing trials, and why.

    \b
    Example:
      reproduce status artifacts/embedded --timing
    """
    from reproduce.jobs import print_status

    sys.exit(print_status(folder, timing))


@main.command(short_help="Write the report of artifact folders.")
@click.argument("folders", type=_PATH, nargs=-1, required=True)
@click.option("--out", type=_PATH, help="Folder for the report.  [default: report/ in the first folder]")
def report(folders: tuple[Path, ...], out: Path | None) -> None:
    """Write figures, tables and one HTML page from one or more artifact FOLDERS.

    \b
    Example:
      reproduce report artifacts/embedded
    """
    from reproduce.jobs import write_report

    write_report(folders, out or folders[0] / "report")


@main.command(short_help="Run one trial without Ray.")
@click.option("--strategy", required=True, help="Such as ALL, LoRA, BOT25, ADT-L50.")
@click.option("--model", required=True, help="Such as tiny-gemma.")
@click.option("--task", required=True, help="Such as tiny-rte.")
@click.option("--seed", default=42, show_default=True)
@click.option("--space", default="embedded", show_default=True, help="Space whose recipe is used.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a recipe value.")
@click.option("--data-dir", type=_PATH, help="Folder with the benchmarks' own files, for the real tasks.")
@click.option("--model-path", "model_paths", multiple=True, metavar="NAME=DIR", help="A model's local copy.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole trial row as JSON.")
def trial(
    strategy: str,
    model: str,
    task: str,
    seed: int,
    space: str,
    overrides: Sequence[str],
    data_dir: Path | None,
    model_paths: Sequence[str],
    as_json: bool,
) -> None:
    """Run one trial in this process, without Ray, and print its row.

    \b
    Example:
      reproduce trial --strategy BOT25 --model tiny-gemma --task tiny-rte --seed 42
    """
    from reproduce.jobs import run_one
    from reproduce.search_space import load_space

    one = {"models": [model], "tasks": [task], "strategies": [strategy], "seeds": [str(seed)]}
    chosen = load_space(space, one, _pairs("--set", overrides))
    sys.exit(run_one(chosen, data_dir, _model_paths(model_paths), as_json))
