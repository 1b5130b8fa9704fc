"""What the commands share: the options that select a space, and the handling of bad input."""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from lfreeze.errors import InputError, shown
from lfreeze.plain_files import local_folder, path_fault
from lfreeze.streams import end_without_output
from reproduce.process import BAD_INPUT, CONTINUES, FAILED, SIGNALLED, ending_signal, interrupted_sentence
from reproduce.terminal import say

if TYPE_CHECKING:
    from reproduce.plan.search_space import SearchSpace

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

# Faults of the disk that a file is written to.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)


class _FilePath(click.Path):
    """A path that a file system can have."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if fault := path_fault(path):
            named = f"{max(param.opts, key=len)} " if param is not None else ""
            raise InputError(f"{named}{shown(str(path))} is no path of a file or folder: {fault}")
        return path


PATH = _FilePath(path_type=Path)
POSITIVE = click.FloatRange(min=0, min_open=True)


class Commands(click.Group):
    """Reports bad input in one sentence, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        error, result = None, None
        try:
            result = super().invoke(ctx)
        except BaseException as raised:
            error = raised
        number = ending_signal(error)
        if number is not None:
            say(interrupted_sentence(number), err=True)
            sys.exit(SIGNALLED + number)
        if isinstance(error, InputError):
            say(f"error: {error}", err=True)
            sys.exit(BAD_INPUT)
        if isinstance(error, OSError) and error.errno in _DISK:
            end_without_output(error)
            what = error.filename or "a file"
            say(f"error: {what} cannot be written ({error.strerror}): {CONTINUES}", err=True)
            sys.exit(FAILED)
        if error is not None:
            raise error
        return result


def _listed(text: str | None) -> list[str] | None:
    return [item for item in text.split(",") if item.strip()] if text is not None else None


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise InputError(f"{option} {shown(text)} is not of the form NAME=VALUE")
    return {name.strip(): value.strip() for name, value in (text.split("=", 1) for text in texts)}


def _model_paths(texts: Sequence[str]) -> dict[str, Path]:
    paths = _pairs("--model-path", texts)
    for name, folder in paths.items():
        if fault := path_fault(Path(folder)):
            raise InputError(f"--model-path {name} = {shown(folder)} is no path of a folder: {fault}")
    # What is no folder is named by the model that lacks it.
    return {name: local_folder(folder) or Path(folder).absolute() for name, folder in paths.items()}


MODEL_OPTIONS = [
    click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a recipe value."),
    click.option(
        "--model-path",
        "model_paths",
        multiple=True,
        metavar="NAME=DIR",
        help="Folder with a model's local copy.",
    ),
    click.option(
        "--pad-token",
        "pad_tokens",
        multiple=True,
        metavar="NAME=TOKEN",
        help="Pad token of a model whose tokenizer has none; eos means its end-of-text token.",
    ),
    click.option(
        "--weights",
        type=click.Choice(["pretrained", "random"]),
        help="random: weights of the true sizes without a download, to measure speed and memory.",
    ),
]
GRID = click.option(
    "--grid",
    multiple=True,
    metavar="KEY=V1,V2",
    help="Train with each of these recipe values, instead of the space's own.",
)


def _complete_space(ctx: click.Context, option: click.Parameter, start: str) -> list[CompletionItem]:
    """The names of spaces that a shell offers, or files where no name begins so."""
    from reproduce.plan.space_file import space_names

    names = [CompletionItem(name) for name in space_names() if name.startswith(start)]
    return names or [CompletionItem(start, type="file")]


_AXIS_OPTIONS = [
    click.argument("space", default="embedded", shell_complete=_complete_space),
    click.option(
        "--models", help="Comma-separated models that replace the space's: names, hub ids, folders."
    ),
    click.option("--tasks", help="Comma-separated tasks that replace the space's."),
    click.option(
        "--strategies", help="Comma-separated strategies that replace the space's, such as ALL,BOT25,ADT-L50."
    ),
    click.option("--seeds", help="Comma-separated seeds that replace the space's."),
]
DATA_DIR = click.option(
    "--data-dir", type=PATH, help="Folder with the benchmarks' own files, for the real tasks."
)
ARTIFACTS = click.option(
    "--artifacts", type=PATH, help="Folder for the results.  [default: artifacts/<space>]"
)
ADDRESS = click.option(
    "--address", help="Join the Ray cluster at this address: auto on one of its nodes, or HOST:PORT."
)
ACCEPT = click.option(
    "--accept-inputs", is_flag=True, help="Accept models and data that differ from the input lock."
)

GPUS_PER_TRIAL = click.option(
    "--gpus-per-trial",
    default="auto",
    show_default=True,
    help="Share of a GPU for every trial, or auto for the one that each is predicted to need.",
)
ENGINE = click.option(
    "--engine",
    type=click.Choice(["ray", "inline"]),
    default="ray",
    show_default=True,
    help="ray: as many trials at once as fit. inline: one after another in this process, without Ray.",
)
SHARD = click.option(
    "--shard",
    metavar="I/N",
    help="Run the I-th of N parts of the space, of about the same size, such as 3/8.",
)


CANARY = click.option(
    "--canary",
    type=click.IntRange(min=1),
    metavar="N",
    help="Repeat the first trial after every N finished ones; end the sweep if its numbers have changed.",
)


def _trackers(ctx: click.Context, option: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


LOG_TO = click.option(
    "--log-to",
    type=click.Choice(["tensorboard", "mlflow", "wandb", "trackio"]),
    multiple=True,
    callback=_trackers,
    help="Also log every trial to this tracker; may be repeated. Each needs the extra of its name.",
)


def print_version(ctx: click.Context, option: click.Parameter, given: bool) -> None:
    """Print the version and end, for the option ``--version``."""
    if given and not ctx.resilient_parsing:
        from reproduce.store.provenance import version

        click.echo(f"reproduce, version {version()}")
        ctx.exit()


def with_options(options: Sequence[_Decorator]) -> _Decorator:
    """Combine several options into one decorator."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def takes_space(command: Callable[..., None]) -> Callable[..., Any]:
    """Add the options that select and narrow a space; the command receives the space."""

    @functools.wraps(command)
    def with_space(space: str, models: str, tasks: str, strategies: str, seeds: str, **rest: Any) -> None:
        axes = {"models": models, "tasks": tasks, "strategies": strategies, "seeds": seeds}
        command(
            load(space, {k: items for k, v in axes.items() if (items := _listed(v)) is not None}, rest),
            **rest,
        )

    return with_options([*_AXIS_OPTIONS, GRID, *MODEL_OPTIONS])(with_space)


def load(space: str, axes: Mapping[str, Sequence[str]], options: dict[str, Any]) -> SearchSpace:
    """The space that the options select; its own options are removed from ``options``."""
    from reproduce.plan.search_space import load_space

    return load_space(
        space,
        axes,
        _pairs("--set", options.pop("overrides")),
        grid={key: text.split(",") for key, text in _pairs("--grid", options.pop("grid", ())).items()},
        model_paths=_model_paths(options.pop("model_paths")),
        pad_tokens=_pairs("--pad-token", options.pop("pad_tokens")),
        weights=options.pop("weights"),
    )
