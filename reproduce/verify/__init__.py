"""Checks that an artifact folder is complete and homogeneous and, given a reference, that their results agree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from lfreeze.errors import first_line
from reproduce.plan.spec import Factors, point_text
from reproduce.store.artifacts import FolderState
from reproduce.store.contents import checked_contents
from reproduce.store.grid import grid_names, with_points
from reproduce.store.parquet import READ_ERRORS, scan_table
from reproduce.store.schema import BIT_COLUMNS
from reproduce.store.suspicions import equal_seeds, one_class
from reproduce.store.suspicions import fingerprints as bits
from reproduce.verify.differences import BITWISE, CELL, LISTED, ORIGIN, RECIPE, TRIAL, names, shown
from reproduce.verify.numbers import Check, Side, compare
from reproduce.verify.proof import freezing, identities

__all__ = ["Check", "verify"]


def verify(
    folder: FolderState, reference: FolderState | None = None, *, partial: bool = False
) -> list[Check]:
    """Check a folder by itself and, if a reference is given, compare the two trial by trial.

    Args:
        partial: the folder may lack trials of the reference.
    """
    grid = grid_names(*(state.table.frame for state in (folder, reference) if state))
    here = _side(folder, grid)
    there = _side(reference, grid) if reference else None
    complete = _complete(folder, here, there, partial)
    if here.ok.is_empty():
        return [complete]
    checks = [
        complete,
        _seeds(here),
        *_classes(here),
        _one_recipe(here),
        _one_origin(here.ok),
        freezing(here.ok),
        identities(here.ok),
    ]
    return [*checks, *compare(here, there)] if there else checks


def _side(folder: FolderState, grid: tuple[str, ...]) -> Side:
    table = checked_contents(folder.table)
    problems = [f"damaged: {Path(*entry.path.parts[-5:])}: {entry.reason}" for entry in table.damaged]
    fingerprints: dict[str, pl.DataFrame | None] = dict.fromkeys(BIT_COLUMNS)
    for name in BIT_COLUMNS:
        rows = scan_table([table], name)
        if rows is None:
            continue
        try:
            fingerprints[name] = bits(rows, name).collect(engine="streaming")
        except READ_ERRORS as error:
            problems.append(f"damaged: a file of the {name}: {first_line(error)}")
    ok = table.frame.filter(pl.col("status") == "ok").unique("run_id", maintain_order=True)
    return Side(with_points(ok, grid), table, grid, fingerprints, tuple(problems))


def _complete(folder: FolderState, here: Side, there: Side | None, partial: bool) -> Check:
    """Every trial that the folder lists, and did not skip, or that the reference holds has a result."""
    done = set(here.ok.select(TRIAL).iter_rows())
    skipped = set(with_points(folder.skipped, here.grid).select(TRIAL).iter_rows()) - done
    expected = {(*t.factors.cell.values(), _point(t.factors, here.grid)) for t in folder.listed}
    expected -= skipped
    where = "that the folder lists"
    if there and not partial:
        where += " or the reference holds"
        expected |= set(there.ok.select(TRIAL).iter_rows())
    absent = sorted(expected - done)
    without = with_points(pl.concat([folder.failed, folder.skipped]), here.grid)
    rows = without.select(*TRIAL, "status", "error_message").iter_rows()
    failed = {
        tuple(cell): f" ({status}: {(message or '').split(chr(10))[0]})" for *cell, status, message in rows
    }
    details = names(absent, "no result: ", [failed.get(cell, "") for cell in absent])
    sentence = f"{len(expected & done):,} of the {len(expected):,} trials {where} have a result"
    if skipped:
        sentence += f"; skipped, since they do not fit the GPUs: {len(skipped):,}"
    if here.problems:
        sentence += f"; files that could not be read: {len(here.problems):,}"
    good = bool(done) and not absent and not here.problems
    return Check("complete", good, sentence, (*details, *here.problems[:LISTED]))


def _point(factors: Factors, grid: tuple[str, ...]) -> str:
    """As ``with_points`` gives it."""
    values = dict(factors.grid)
    return point_text((name, values[name]) for name in grid if name in values)


def _seeds(here: Side) -> Check:
    """No trial is there twice, and no two seeds have the same training."""
    twice = here.ok.filter(pl.len().over(TRIAL) > 1).select(TRIAL).unique().sort(TRIAL).rows()
    if twice:
        sentence = f"{len(twice):,} trials exist more than once, with different recipes or inputs"
        return Check("seeds", False, sentence, names(twice))
    counts = here.ok.group_by(*CELL[:3], "point").len()["len"]
    span = " to ".join(str(count) for count in sorted({min(counts), max(counts)}))
    sentence = f"{span} for each strategy, model and task, none twice"
    known = {table: prints for table, prints in here.fingerprints.items() if prints is not None}
    if not known:
        return Check("seeds", True, f"{sentence}; no losses or logits are available for a comparison")
    for table, prints in known.items():
        alike = equal_seeds(here.ok, prints)
        if alike.height:
            sentence = f"{alike.height:,} trials have exactly the {BITWISE[table]} of another seed"
            return Check("seeds", False, sentence, names(alike.select(TRIAL).sort(TRIAL).rows()))
    compared = " or ".join(BITWISE[table] for table in known)
    return Check("seeds", True, f"{sentence}, no two with the same {compared}")


def _classes(here: Side) -> list[Check]:
    """Whether a model predicts one class for every example; not judged, since it may have learned nothing."""
    rows = scan_table([here.table], "predictions")
    if rows is None:
        return []
    try:
        constant = one_class(rows).collect(engine="streaming")
    except READ_ERRORS:  # named with the other damaged files
        return []
    found = here.ok.join(constant, on="run_id", how="semi").sort(TRIAL)
    if found.is_empty():
        return [Check("classes", True, "no trial predicts one class for every example")]
    sentence = f"{found.height:,} trials predict one class for every example"
    return [Check("classes", None, sentence, names(found.select(TRIAL).rows()))]


def _one_recipe(here: Side) -> Check:
    """All trials have the same recipe, but for the values that their space's grid varies."""
    various = _various(here.ok, [name for name in RECIPE if name.removeprefix("recipe_") not in here.grid])
    sentence = f"the trials have {'several recipes' if various else 'one recipe'}"
    if here.grid:
        sentence += f", and {here.ok['point'].n_unique():,} points of a grid over {', '.join(here.grid)}"
    return Check("recipe", not various, sentence, various)


def _one_origin(ok: pl.DataFrame) -> Check:
    """All trials come from one image (code, packages, drivers), and a commit contains that code."""
    various = _various(ok, ORIGIN)
    if various:
        return Check("image", False, "the trials come from several images or installations", various)
    if ok["git_dirty"].any():
        return Check("image", False, "the trials' code has uncommitted changes, so it cannot be restored")
    return Check("image", True, "the trials come from one image or installation without uncommitted changes")


def _various(ok: pl.DataFrame, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns in which trials differ, with their values."""
    texts = []
    for column in columns:
        values = ok[column].unique().to_list()
        if len(values) > 1 and column == "package_versions_json":
            texts += _packages(values)
        elif len(values) > 1:
            texts.append(
                f"{column.removeprefix('recipe_')}: {' or '.join(sorted(shown(column, v) for v in values))}"
            )
    return tuple(texts)


def _packages(versions: Sequence[str]) -> list[str]:
    """The packages whose versions differ, as ``torch: 2.12.0 or 2.13.0``."""
    sets = [json.loads(text) for text in versions]
    every = {name: sorted({each.get(name, "none") for each in sets}) for name in sorted(set().union(*sets))}
    return [f"{name}: {' or '.join(values)}" for name, values in every.items() if len(values) > 1]
