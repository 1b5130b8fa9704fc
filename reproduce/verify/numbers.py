"""Compares the trials of an artifact folder with the same trials of a reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from reproduce.store.parquet import TrialTable, scan_table
from reproduce.store.schema import TRIAL_COLUMNS
from reproduce.verify.differences import (
    BITWISE,
    HARDWARE,
    INPUTS,
    LISTED,
    RECIPE,
    TRIAL,
    VERSIONS,
    columns_with_role,
    differences,
    names,
    percent,
    reason,
    strictly_deterministic,
)

# Tolerances for trials on other hardware or versions.
_POINTS = 0.02  # of one trial's accuracy, at least
_MEAN_POINTS = 0.005  # of a strategy's mean accuracy, at least
_CHANCE = 0.01  # the probability that chance alone puts any trial, or any strategy's mean, outside
_MEMORY = {c.name: c.tolerance for c in TRIAL_COLUMNS.values() if c.verify == "memory" and c.tolerance}


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        passed: None for information that is not judged.
        details: the first trials or values that the sentence is about.
    """

    name: str
    passed: bool | None
    sentence: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Side:
    """The folder or its reference, as far as the checks need it.

    Attributes:
        ok: the rows of the successful trials, with a column ``point``: their values of a grid.
        grid: the names of the recipe values that the grid of either side varies.
        fingerprints: for each of ``BITWISE``, a ``fingerprint`` by run_id, equal for trials whose numbers are
            equal bit by bit; None without such files.
        problems: one text for each file that could not be read.
    """

    ok: pl.DataFrame
    table: TrialTable
    grid: tuple[str, ...]
    fingerprints: Mapping[str, pl.DataFrame | None]
    problems: tuple[str, ...]


def compare(here: Side, there: Side) -> list[Check]:
    """Compare the trials that both sides hold."""
    pairs = here.ok.unique(TRIAL, keep="first").join(
        there.ok.unique(TRIAL, keep="first"), on=TRIAL, suffix="_there", maintain_order="left"
    )
    if pairs.is_empty():
        return [Check("reference", False, "no trial has a result both here and in the reference")]
    only = here.ok.height - pairs.height
    for table in BITWISE:
        pairs = pairs.with_columns(_same_bits(pairs, here, there, table).alias(f"same_{table}"))
    settings = [*RECIPE, *INPUTS, *VERSIONS, *HARDWARE]
    alike = pl.all_horizontal(pl.col(c).eq_missing(pl.col(f"{c}_there")) for c in settings)
    strict = strictly_deterministic() & strictly_deterministic("_there")
    pairs = pairs.with_columns(exact=(alike & strict).fill_null(False), alike=alike)
    checks = [
        _inputs(pairs),
        _exact(pairs.filter("exact"), here, there),
        *_close(pairs.filter(~pl.col("exact"))),
    ]
    checks += [_memory(pairs), _speed(pairs)]
    if only:
        checks.append(
            Check("beyond", None, f"{only:,} trials are not in the reference and were not compared")
        )
    return [check for check in checks if check]


def _same_bits(pairs: pl.DataFrame, here: Side, there: Side, table: str) -> pl.Series:
    """Whether losses or logits are equal bit by bit; null where one of the two sides has none."""
    empty = pl.DataFrame(schema={"run_id": pl.String, "fingerprint": pl.UInt64})
    joined = pairs.select("run_id", "run_id_there")
    for side, run_id, suffix in ((here, "run_id", ""), (there, "run_id_there", "_there")):
        fingerprints = side.fingerprints[table]
        fingerprints = empty if fingerprints is None else fingerprints
        fingerprints = fingerprints.rename({"run_id": run_id, "fingerprint": f"fingerprint{suffix}"})
        joined = joined.join(fingerprints, on=run_id, how="left", maintain_order="left")
    return joined.select(pl.col("fingerprint") == pl.col("fingerprint_there")).to_series()


def _inputs(pairs: pl.DataFrame) -> Check:
    """Recipe, models and data are those of the reference."""
    columns = [*RECIPE, *INPUTS]
    differing = differences(pairs, columns)
    sentence = "recipe, models and data are " + (
        "not those of the reference" if differing else "those of the reference"
    )
    return Check("inputs", not differing, sentence, tuple(differing[:LISTED]))


def _exact(pairs: pl.DataFrame, here: Side, there: Side) -> Check | None:
    """On equal hardware and versions every number of deterministic algorithms is equal bit by bit."""
    if pairs.is_empty():
        return None
    columns = columns_with_role("result")
    same = pl.all_horizontal(
        *(pl.col(c).eq_missing(pl.col(f"{c}_there")) for c in columns),
        *(pl.col(f"same_{table}").fill_null(True) for table in BITWISE),
    )
    other = pairs.filter(~same).sort(TRIAL)
    compared = ["accuracies", "frozen layers"]
    for table, what in BITWISE.items():
        if count := pairs[f"same_{table}"].count():
            compared.append(f"{what} of {count:,}")
    sentence = (
        f"of {pairs.height:,} trials on equal hardware and versions with deterministic algorithms only, "
        f"{pairs.height - other.height:,} are equal bit by bit (compared: {', '.join(compared)})"
    )
    if other.is_empty():
        return Check("exact", True, sentence)
    details = names(
        other.select(TRIAL).rows(), after=[_apart(row, here, there) for row in other.head(LISTED).to_dicts()]
    )
    return Check("exact", False, sentence, (*details, reason(other)))


def _apart(row: Mapping[str, Any], here: Side, there: Side) -> str:
    """Which results of a trial differ, and by how much."""
    parts = []
    if row["validation_accuracy"] != row["validation_accuracy_there"]:
        parts.append(
            f"accuracy {row['validation_accuracy']:.4f}, {row['validation_accuracy_there']:.4f} there"
        )
    if row["frozen_layers"] != row["frozen_layers_there"]:
        parts.append(f"layers {row['frozen_layers']} frozen, {row['frozen_layers_there']} there")
    if row["same_steps"] is False:
        losses = [
            _rows(side, "steps", row[run]).sort("step")
            for side, run in ((here, "run_id"), (there, "run_id_there"))
        ]
        joined = losses[0].join(losses[1], on="step", suffix="_there", how="full", coalesce=True)
        apart = joined.filter(
            pl.any_horizontal(pl.col(c).ne_missing(pl.col(f"{c}_there")) for c in ("loss", "grad_norm"))
        )
        most = max((apart["loss"] - apart["loss_there"]).abs().drop_nulls(), default=0.0)
        parts.append(f"losses from step {min(apart['step'])} on, by at most {most:.3g}")
    if row["same_predictions"] is False:
        parts.append("logits")
    if row["same_evaluations"] is False:
        parts.append("evaluations during training")
    return f": {'; '.join(parts) or 'layer changes'}"


def _rows(side: Side, table: str, run_id: str) -> pl.DataFrame:
    rows = scan_table([side.table], table)
    assert rows is not None
    return rows.filter(pl.col("run_id") == run_id).collect()


def _close(pairs: pl.DataFrame) -> list[Check]:
    """Where bits may differ, accuracies differ by no more than chance explains."""
    if pairs.is_empty():
        return []
    from scipy import stats  # importing it needs a second, and it is rarely used

    # Two-sided, Bonferroni-corrected for the number of trials; both accuracies have the error of n examples.
    z = float(stats.norm.isf(_CHANCE / 2 / pairs.height))
    mean = (pl.col("validation_accuracy") + pl.col("validation_accuracy_there")) / 2
    error = (2 * mean * (1 - mean) / pl.col("n_validation")).sqrt()
    pairs = pairs.with_columns(
        apart=pl.col("validation_accuracy") - pl.col("validation_accuracy_there"),
        allowed=pl.max_horizontal(pl.lit(_POINTS), z * error),
    )
    far = pairs.filter(pl.col("apart").abs() > pl.col("allowed")).sort(TRIAL)
    reasons = {
        "on other hardware, versions or settings": pairs.filter(~pl.col("alike")).height,
        "with algorithms that may not be deterministic": pairs.filter(pl.col("alike")).height,
    }
    why = " or ".join(text for text, count in reasons.items() if count)
    sentence = (
        f"of {pairs.height:,} trials {why}, {pairs.height - far.height:,} have an accuracy "
        f"within {100 * _POINTS:g} points of the reference, or within {z:.1f} standard errors of the difference; "
        f"largest difference {100 * max(pairs['apart'].abs()):.1f} points"
    )
    after = [
        f": {_apart_points(row)}, allowed ± {100 * row['allowed']:.1f}" for row in far.head(LISTED).to_dicts()
    ]
    details = names(far.select(TRIAL).rows(), after=after)
    checks = [Check("accuracy", far.is_empty(), sentence, (*details, *([reason(far)] if far.height else [])))]
    # A single trial has no standard error; the check of single trials covers it.
    several = pairs.filter(pl.len().over("strategy") > 1)
    return [*checks, *([_means(several)] if several.height else []), _same_layers(pairs)]


def _apart_points(row: Mapping[str, Any]) -> str:
    return (
        f"{100 * row['validation_accuracy']:.1f} %, {100 * row['validation_accuracy_there']:.1f} % there "
        f"({100 * row['apart']:+.1f} points)"
    )


def _means(pairs: pl.DataFrame) -> Check:
    """No strategy's mean accuracy differs from the reference by more than chance explains."""
    from scipy import stats

    means = pairs.group_by("strategy").agg(
        pl.col("apart").mean(), error=pl.col("apart").std() / pl.len().sqrt(), n=pl.len()
    )
    means = means.sort("strategy")
    quantiles = stats.t.isf(_CHANCE / 2 / means.height, means["n"].to_numpy() - 1)
    means = means.with_columns(
        allowed=pl.max_horizontal(
            pl.lit(_MEAN_POINTS), pl.Series(quantiles, dtype=pl.Float64) * pl.col("error")
        )
    )
    far = means.filter(pl.col("apart").abs() > pl.col("allowed"))
    sentence = (
        f"of {means.height} strategies, {means.height - far.height} have a mean accuracy within "
        f"{100 * _MEAN_POINTS:g} points of the reference, or within what chance allows"
    )
    details = [
        f"{row['strategy']}: {100 * row['apart']:+.2f} points, allowed ± {100 * row['allowed']:.2f}, n = {row['n']}"
        for row in far.to_dicts()
    ]
    return Check("means", far.is_empty(), sentence, tuple(details))


def _same_layers(pairs: pl.DataFrame) -> Check:
    """Strategies with fixed layers froze the same layers; adaptive ones may have selected others."""
    pairs = pairs.with_columns(same=pl.col("frozen_layers").eq_missing(pl.col("frozen_layers_there")))
    adaptive = pairs.filter(pl.col("layer_changes").is_not_null())
    other = pairs.filter(pl.col("layer_changes").is_null() & ~pl.col("same")).sort(TRIAL)
    sentence = "every strategy with fixed layers froze the same layers as in the reference"
    if other.height:
        sentence = f"{other.height:,} trials of strategies with fixed layers froze other layers than in the reference"
    if adaptive.height:
        sentence += (
            f"; of {adaptive.height:,} adaptive trials, {adaptive['same'].sum():,} selected the same layers"
        )
    return Check("layers", other.is_empty(), sentence, names(other.select(TRIAL).rows()))


def _memory(pairs: pl.DataFrame) -> Check:
    """Memory that was measured by the same method is close to the reference."""
    alike = pairs.filter(
        pl.col("memory_method") == pl.col("memory_method_there"), pl.col("device") == pl.col("device_there")
    )
    if alike.is_empty():
        return Check(
            "memory",
            None,
            "memory was measured by another method than in the reference, so it is not compared",
        )
    apart = {
        name: pl.when(pl.col(f"{name}_there") > 0).then(pl.col(name) / pl.col(f"{name}_there") - 1)
        for name in _MEMORY
    }
    ratios = alike.select(*TRIAL, **apart)
    outside = pl.any_horizontal(pl.col(name).abs() > most for name, most in _MEMORY.items())
    far = ratios.filter(outside.fill_null(False)).sort(TRIAL)
    largest = max((abs(value) for name in _MEMORY for value in ratios[name].drop_nulls()), default=0.0)
    sentence = (
        f"of {alike.height:,} trials, {alike.height - far.height:,} need as much memory as in the reference "
        f"(training within {100 * _MEMORY['training_bytes']:g} %, static within {100 * _MEMORY['static_bytes']:g} %; "
        f"largest difference {100 * largest:.1f} %)"
    )
    after = [
        f": training {percent(row['training_bytes'])}, static {percent(row['static_bytes'])}"
        for row in far.to_dicts()
    ]
    return Check("memory", far.is_empty(), sentence, names(far.select(TRIAL).rows(), after=after))


def _speed(pairs: pl.DataFrame) -> Check:
    timed = pairs.drop_nulls(["seconds_per_10_steps", "seconds_per_10_steps_there"])
    if timed.is_empty():
        return Check("speed", None, "there are no step times to compare")
    ratio = timed.select(pl.col("seconds_per_10_steps") / pl.col("seconds_per_10_steps_there")).median()
    sentence = f"a step took {ratio.item():.2f} times as long as in the reference (median of {timed.height:,} trials)"
    return Check(
        "speed", None, f"{sentence}; not judged, because it depends on the device and its other load"
    )
