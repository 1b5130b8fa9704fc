"""How trials differ, and the likely reasons, in words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import polars as pl

from reproduce.store.schema import TRIAL_COLUMNS

CELL = ["model", "task", "strategy", "seed"]
# With the values of a grid, as ``reproduce.store.grid.with_points`` names them.
TRIAL = [*CELL, "point"]
# The tables that are compared bit by bit.
BITWISE = {"steps": "losses", "predictions": "logits", "evaluations": "evaluations during training"}
LISTED = 10  # the number of trials that a check names


def columns_with_role(role: str) -> tuple[str, ...]:
    """The columns whose role in this command (``Column.verify``) is ``role``, in the order of the files."""
    return tuple(column.name for column in TRIAL_COLUMNS.values() if column.verify == role)


# Columns that a number depends on, in the order in which they explain a difference.
RECIPE = columns_with_role("recipe")
INPUTS = columns_with_role("inputs")
CODE = columns_with_role("code")
VERSIONS = columns_with_role("versions")
HARDWARE = columns_with_role("hardware")
ORIGIN = (*CODE, *VERSIONS)


def names(
    cells: Sequence[Sequence[object]], before: str = "", after: Sequence[str] | None = None
) -> tuple[str, ...]:
    """The first trials as texts, and the number of further ones."""
    after = after or [""] * len(cells)
    shown = zip(cells[:LISTED], after, strict=False)
    texts = [f"{before}{'/'.join(str(part) for part in cell if part != '')}{end}" for cell, end in shown]
    rest = len(cells) - LISTED
    return (*texts, f"and {rest:,} more") if rest > 0 else tuple(texts)


def shown(column: str, value: object) -> str:
    """A value as shown in a sentence; hashes and commits are shortened."""
    if value is None:
        return (TRIAL_COLUMNS[column].reason if column in RECIPE else None) or "unknown"
    short = column.endswith(("_hash", "_fingerprint", "_commit", "_digest"))
    return str(value)[:12] if short else str(value)


def percent(part: float | None) -> str:
    """A relative difference."""
    return "unknown" if part is None else f"{100 * part:+.1f} %"


def strictly_deterministic(suffix: str = "") -> pl.Expr:
    """Whether a trial used nothing but deterministic algorithms on a known device, so that its bits repeat.

    Before schema version 4, the column was also true where torch only warned of other algorithms. On the CPU
    it used none of them all the same; on a GPU it did.
    """
    known = pl.all_horizontal(
        pl.col(f"{name}{suffix}").is_not_null()
        for name in ("gpu_name", "driver_version", "cuda_version", "cudnn_version")
    )
    on_gpu = known & (pl.col(f"schema_version{suffix}") >= 4)
    return pl.col(f"deterministic_algorithms{suffix}") & ((pl.col(f"device{suffix}") == "cpu") | on_gpu)


def reason(pairs: pl.DataFrame) -> str:
    """The likely reason why these trials differ: the first group of recorded columns that is not the same."""
    groups: dict[str, Iterable[str]] = {
        "the recipe": RECIPE,
        "the models or data": INPUTS,
        "the code": CODE,
        "the versions": VERSIONS,
        "the hardware": HARDWARE,
    }
    by_group = {name: differences(pairs, columns) for name, columns in groups.items()}
    by_group = {name: texts for name, texts in by_group.items() if texts}
    if not by_group:
        same = "nothing recorded explains it: recipe, inputs, code, versions and hardware are the same"
        cpu = (pairs["device"] == "cpu").all()
        return f"likely reason: {same}" + (" (processors of one name can still differ)" if cpu else "")
    first, *rest = by_group
    also = f"; also other: {', '.join(name.removeprefix('the ') for name in rest)}" if rest else ""
    return f"likely reason: {first} ({'; '.join(by_group[first][:5])}){also}"


def differences(pairs: pl.DataFrame, columns: Iterable[str]) -> list[str]:
    """One text for each column that differs, with its first pair of values."""
    texts = []
    for column in columns:
        other = pairs.filter(~pl.col(column).eq_missing(pl.col(f"{column}_there")))
        if other.height:
            values = [shown(column, other[name][0]) for name in (column, f"{column}_there")]
            if column == "package_versions_json":
                texts.append(_packages(*(other[name][0] for name in (column, f"{column}_there"))))
            else:
                name = column.removeprefix("recipe_")
                where = "" if other.height == pairs.height else f" in {other.height:,} trials"
                texts.append(f"{name} is {values[0]} here, {values[1]} in the reference{where}")
    return texts


def _packages(here: str | None, there: str | None) -> str:
    mine, other = json.loads(here or "{}"), json.loads(there or "{}")
    differing = [name for name in sorted({*mine, *other}) if mine.get(name) != other.get(name)]
    return ", ".join(
        f"{n} {mine.get(n, 'none')} here, {other.get(n, 'none')} in the reference" for n in differing
    )
