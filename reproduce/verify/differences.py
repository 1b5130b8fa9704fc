"""What differs between trials, and what may be the reason, in words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import polars as pl

CELL = ["model", "task", "strategy", "seed"]
LISTED = 10  # trials that a check names

# Columns that a number depends on beside the recipe, in the order in which they explain a difference.
INPUTS = ("weights", "weights_hash", "tokenizer_hash", "dataset_fingerprint")
CODE = ("lfreeze_version", "git_commit", "git_dirty", "image_digest")
VERSIONS = ("python_version", "package_versions_json", "cuda_version", "cudnn_version", "driver_version")
HARDWARE = ("device", "gpu_name", "cpu_model", "platform", "attention_implementation")
ORIGIN = (*CODE, *VERSIONS)


def recipe_columns(frame: pl.DataFrame) -> list[str]:
    """Those of this side, in a frame of pairs."""
    return [name for name in frame.columns if name.startswith("recipe_") and not name.endswith("_there")]


def names(
    cells: Sequence[Sequence[object]], before: str = "", after: Sequence[str] | None = None
) -> tuple[str, ...]:
    """The first cells as texts, and how many more there are."""
    after = after or [""] * len(cells)
    texts = [f"{before}{'/'.join(map(str, c))}{end}" for c, end in zip(cells[:LISTED], after, strict=False)]
    rest = len(cells) - LISTED
    return (*texts, f"and {rest:,} more") if rest > 0 else tuple(texts)


def shown(column: str, value: object) -> str:
    """A value in a sentence; of hashes and commits the beginning."""
    short = column.endswith(("_hash", "_fingerprint", "_commit", "_digest"))
    return "unknown" if value is None else str(value)[:12] if short else str(value)


def reason(pairs: pl.DataFrame) -> str:
    """What most likely made these trials differ: what comes first of what is recorded and not the same."""
    groups: dict[str, Iterable[str]] = {
        "the recipe": recipe_columns(pairs),
        "the models or data": INPUTS,
        "the code": CODE,
        "the versions": VERSIONS,
        "the hardware": HARDWARE,
    }
    found = {name: differences(pairs, columns) for name, columns in groups.items()}
    found = {name: texts for name, texts in found.items() if texts}
    if not found:
        same = "nothing recorded explains it: recipe, inputs, code, versions and hardware are the same"
        cpu = (pairs["device"] == "cpu").all()
        return f"likely reason: {same}" + (" (processors of one name can still differ)" if cpu else "")
    first, *rest = found
    also = f"; also other: {', '.join(name.removeprefix('the ') for name in rest)}" if rest else ""
    return f"likely reason: {first} ({'; '.join(found[first][:5])}){also}"


def differences(pairs: pl.DataFrame, columns: Iterable[str]) -> list[str]:
    """The columns that are not the same, as ``name: here, there``."""
    found = []
    for column in columns:
        other = pairs.filter(~pl.col(column).eq_missing(pl.col(f"{column}_there")))
        if other.height:
            values = [shown(column, other[name][0]) for name in (column, f"{column}_there")]
            if column == "package_versions_json":
                found.append(_packages(*(other[name][0] for name in (column, f"{column}_there"))))
            else:
                name = column.removeprefix("recipe_")
                where = "" if other.height == pairs.height else f" in {other.height:,} trials"
                found.append(f"{name} is {values[0]} here, {values[1]} in the reference{where}")
    return found


def _packages(here: str | None, there: str | None) -> str:
    mine, other = json.loads(here or "{}"), json.loads(there or "{}")
    differing = [name for name in sorted({*mine, *other}) if mine.get(name) != other.get(name)]
    return ", ".join(
        f"{n} {mine.get(n, 'none')} here, {other.get(n, 'none')} in the reference" for n in differing
    )
