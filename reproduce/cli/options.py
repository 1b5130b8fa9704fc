"""What the commands share: the options that select a space, and the handling of bad input."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lfreeze.errors import InputError
from reproduce.process import BAD_INPUT, CONTINUES, SIGNALLED, ending_signal

if TYPE_CHECKING:
    from reproduce.plan.search_space import SearchSpace

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

PATH = click.Path(path_type=Path)
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
            click.echo(f"interrupted ({number.name}): {CONTINUES}.", err=True)
            sys.exit(SIGNALLED + number)
        if isinstance(error, InputError):
            click.echo(f"error: {error}", err=True)
            sys.exit(BAD_INPUT)
        if error is not None:
            raise error
        return result


def _listed(text: str | None) -> list[str] | None:
    return [item for item in text.split(",") if item.strip()] if text is not None else None


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise InputError(f"{option} {text!r} is not of the form NAME=VALUE")
    return {name.strip(): value.strip() for name, value in (text.split("=", 1) for text in texts)}


def _model_paths(texts: Sequence[str]) -> dict[str, Path]:
    return {
        name: Path(folder).expanduser().resolve() for name, folder in _pairs("--model-path", texts).items()
    }


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
_AXIS_OPTIONS = [
    click.argument("space", default="embedded"),
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

    return with_options([*_AXIS_OPTIONS, *MODEL_OPTIONS])(with_space)


def load(space: str, axes: Mapping[str, Sequence[str]], options: dict[str, Any]) -> SearchSpace:
    """The space that the options select; its own options are removed from ``options``."""
    from reproduce.plan.search_space import load_space

    return load_space(
        space,
        axes,
        _pairs("--set", options.pop("overrides")),
        model_paths=_model_paths(options.pop("model_paths")),
        pad_tokens=_pairs("--pad-token", options.pop("pad_tokens")),
        weights=options.pop("weights"),
    )
