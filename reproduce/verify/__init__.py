"""Checks that an artifact folder is complete and homogeneous and, given a reference, that their results agree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from lfreeze.errors import first_line
from reproduce.store.artifacts import FolderState
from reproduce.store.parquet import scan_table
from reproduce.verify.differences import CELL, LISTED, ORIGIN, RECIPE, names, shown
from reproduce.verify.numbers import Check, Side, compare

__all__ = ["Check", "verify"]

# Columns whose values distinguish two trainings to the last bit.
_BITS = {"steps": ("step", "loss", "grad_norm"), "predictions": ("example_id", "prediction", "logits")}


def verify(
    folder: FolderState, reference: FolderState | None = None, *, partial: bool = False
) -> list[Check]:
    """Check a folder by itself and, if a reference is given, compare the two trial by trial.

    Args:
        partial: the folder may lack trials of the reference.
    """
    here = _side(folder)
    there = _side(reference) if reference else None
    complete = _complete(folder, here, there, partial)
    if here.ok.is_empty():
        return [complete]
    checks = [complete, _seeds(here), _one_recipe(here.ok), _one_origin(here.ok)]
    return [*checks, *compare(here, there)] if there else checks


def _side(folder: FolderState) -> Side:
    problems = [f"damaged: {Path(*entry.path.parts[-5:])}: {entry.reason}" for entry in folder.table.damaged]
    fingerprints: dict[str, pl.DataFrame | None] = dict.fromkeys(_BITS)
    for table, columns in _BITS.items():
        rows = scan_table([folder.table], table)
        if rows is None:
            continue
        try:
            hashed = pl.struct(columns).hash().bitwise_xor().alias("fingerprint")
            fingerprints[table] = rows.group_by("run_id").agg(hashed).collect(engine="streaming")
        except (pl.exceptions.PolarsError, OSError) as error:
            problems.append(f"damaged: a file of the {table}: {first_line(error)}")
    ok = folder.table.frame.filter(pl.col("status") == "ok").unique("run_id", maintain_order=True)
    return Side(ok, folder.table, fingerprints, tuple(problems))


def _complete(folder: FolderState, here: Side, there: Side | None, partial: bool) -> Check:
    """Every trial that the folder lists, and did not skip, or that the reference holds has a result."""
    done = set(here.ok.select(CELL).iter_rows())
    skipped = set(folder.skipped.select(CELL).iter_rows()) - done
    expected = {(t.factors.model, t.factors.task, t.factors.strategy, t.factors.seed) for t in folder.listed}
    expected -= skipped
    where = "that the folder lists"
    if there and not partial:
        where += " or the reference holds"
        expected |= set(there.ok.select(CELL).iter_rows())
    absent = sorted(expected - done)
    without = pl.concat([folder.failed, folder.skipped])
    rows = without.select(*CELL, "status", "error_message").iter_rows()
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


def _seeds(here: Side) -> Check:
    """No trial is there twice, and no two seeds have the same training."""
    twice = here.ok.filter(pl.len().over(CELL) > 1).select(CELL).unique().sort(CELL).rows()
    if twice:
        sentence = f"{len(twice):,} trials exist more than once, with different recipes or inputs"
        return Check("seeds", False, sentence, names(twice))
    counts = here.ok.group_by(CELL[:3]).len()["len"]
    span = " to ".join(str(count) for count in sorted({min(counts), max(counts)}))
    sentence = f"{span} for each strategy, model and task, none twice"
    losses = here.fingerprints["steps"]
    if losses is None:
        return Check("seeds", True, f"{sentence}; the losses are not available for a comparison")
    alike = here.ok.join(losses, on="run_id").filter(pl.len().over(*CELL[:3], "fingerprint") > 1)
    if alike.height:
        sentence = f"{alike.height:,} trials have exactly the losses of another seed"
        return Check("seeds", False, sentence, names(alike.select(CELL).sort(CELL).rows()))
    return Check("seeds", True, f"{sentence}, no two with the same losses")


def _one_recipe(ok: pl.DataFrame) -> Check:
    various = _various(ok, RECIPE)
    return Check(
        "recipe", not various, f"the trials have {'several recipes' if various else 'one recipe'}", various
    )


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
