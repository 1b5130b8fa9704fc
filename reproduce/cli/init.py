"""``reproduce init``: a commented search-space file for a model and texts of one's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lfreeze.errors import InputError
from reproduce.cli.options import PATH
from reproduce.terminal import say

if TYPE_CHECKING:
    from reproduce.plan.search_space import SearchSpace

# The part of the examples that is drawn for validation where no file has them.
_FRACTION = 0.1
_MOST_LABELS = 20


@click.command(short_help="Write a search-space file for your own model and texts.")
@click.option(
    "--model",
    "models",
    multiple=True,
    required=True,
    help="Model: a name such as tiny-gemma, a hub id, or a folder; may be repeated.",
)
@click.option("--train", type=PATH, required=True, help="Training file: CSV, TSV, JSON Lines or Parquet.")
@click.option(
    "--text", "texts", multiple=True, required=True, help="Column of the texts; twice for pairs of texts."
)
@click.option("--label", required=True, help="Column of the labels.")
@click.option(
    "--validation", type=PATH, help="Validation file.  [default: a tenth of the training file, drawn]"
)
@click.option("--out", type=PATH, default=Path("mine.toml"), show_default=True, help="The file to write.")
def init(**options: Any) -> None:
    """Check a training file, and write a commented search-space file for it and your models.

    The space's task has the file's name: mine for mine.toml. A file that exists is not replaced.

    \b
    Example:
      reproduce init --model tiny-gemma --train reviews.csv --text review --label stars --out mine.toml
    """
    _write(**options)


def _write(
    models: tuple[str, ...],
    train: Path,
    texts: tuple[str, ...],
    label: str,
    validation: Path | None,
    out: Path,
) -> None:
    from lfreeze.data.loading import load_task
    from lfreeze.models.catalog import get_model
    from reproduce.plan.own_tasks import own_task
    from reproduce.plan.search_space import load_space

    _require_new(out)
    if len(texts) > 2:
        raise InputError(f"--text is given {len(texts)} times; a task has one text or two")
    cards = [get_model(name) for name in models]
    base = load_space("embedded" if all(card.tiny for card in cards) else "small")
    table: dict[str, Any] = {"train": _beside(train, out)}
    table |= {"validation": _beside(validation, out)} if validation else {"validation_fraction": _FRACTION}
    table |= {"text": texts[0] if len(texts) == 1 else list(texts), "label": label}
    task = own_task(out.name, out.stem, table, out.parent)
    data = load_task(task, base.recipe.max_train_examples, 0)
    # Models in a space are relative to no file.
    named = [str(card.folder or name) for name, card in zip(models, cards, strict=True)]
    content = _content(out, base, named, table, data.task.labels)
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(content)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror})") from None
    labels = ", ".join([*data.task.labels[:_MOST_LABELS], "..."][: len(data.task.labels)])
    say(
        f"{out}: {data.n_available:,} training and {data.n_validation_available:,} validation examples, "
        f"{len(data.task.labels)} labels: {labels}"
    )
    say(f"Next: reproduce run {out}")


def _require_new(out: Path) -> None:
    if out.suffix != ".toml":
        raise InputError(f"--out {out} does not end in .toml, as the name of a search-space file does")
    if out.exists():
        raise InputError(f"{out} exists already and is not replaced: name another file with --out")
    if not out.absolute().parent.is_dir():
        raise InputError(f"--out {out}: the folder {out.parent} does not exist")


def _beside(path: Path, out: Path) -> str:
    """A path as the space's file names it: relative to that file's folder, unless it is absolute."""
    return path.as_posix() if path.is_absolute() else Path(os.path.relpath(path, out.parent)).as_posix()


def _line(key: str, value: Any) -> str:
    """A key with its value in TOML, a list in one line."""
    import tomli_w

    if isinstance(value, list):
        items = [_line(key, item).removeprefix(f"{key} = ") for item in value]
        return f"{key} = [{', '.join(items)}]"
    return tomli_w.dumps({key: value}).strip()


def _content(
    out: Path, base: SearchSpace, models: list[str], table: dict[str, Any], labels: tuple[str, ...]
) -> str:
    recipe, lines = base.recipe, {key: _line(key, value) for key, value in table.items()}
    if "validation" in table:
        validation = lines["validation"]
    else:
        validation = f"""\
# This part of each label's examples is drawn for validation, by data_seed; the key validation names a file instead.
{lines["validation_fraction"]}"""
    return f"""\
# Does freezing layers work for these models on these texts, and what does it save?
#
#   reproduce plan {out.name}    predicts the memory and time of each trial; starts nothing
#   reproduce run {out.name}     runs the missing trials and writes artifacts/{out.stem}/report/report.html

# Every key that this file lacks has its value in this space.
{_line("extends", base.name)}
{_line("description", "My models on my texts")}
{_line("models", models)}
# ALL trains every layer, and the others are compared with it. BOT25 freezes the bottom quarter of the layers. More
# strategies: INT25, TOP25, ADT-L25, RND25, BitFit.
{_line("strategies", ["ALL", "BOT25", "BOT50", "LoRA"])}
# Each strategy runs once for each seed; a difference below the spread of the seeds says nothing.
{_line("seeds", [42, 43, 44])}

[recipe]
# {_line("steps", recipe.steps)}
# A rate that suits ALL need not suit the others.
# {_line("learning_rate", recipe.learning_rate)}
# At most so many training examples are used; data_seed draws them.
# {_line("max_train_examples", recipe.max_train_examples)}
# Longer texts are cut off at so many tokens.
# {_line("max_length", recipe.max_length)}

[tasks.{out.stem}]
# Files are relative to this one.
{lines["train"]}
{validation}
# The column of the texts, or a list of two columns for pairs; the column of the labels.
{lines["text"]}
{lines["label"]}
# The labels in order; by default numbers ascending and words sorted.
# {_line("labels", list(labels))}
"""
