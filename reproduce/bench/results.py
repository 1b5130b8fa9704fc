"""The files of ``reproduce bench``: one JSON file for each benchmark, one table and one picture of all of them."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lfreeze.atomic import write_atomically
from lfreeze.errors import InputError
from reproduce.bench.registry import BENCHMARKS
from reproduce.bench.settings import Settings
from reproduce.bench.spec import Benchmark, Row
from reproduce.store.provenance import hardware, software

COLUMNS = (
    "benchmark",
    "of",
    "series",
    "ratio",
    "median",
    "lowest",
    "highest",
    "ideal",
    "pairs",
    "quick",
    "values",
)


@dataclass(frozen=True)
class Result:
    """What one benchmark measured.

    Attributes:
        conditions: the settings, the versions and the hardware of the run, as in its file.
    """

    benchmark: Benchmark
    rows: tuple[Row, ...]
    conditions: Mapping[str, Any]


def conditions(settings: Settings) -> dict[str, Any]:
    """Where and how a benchmark is about to run; no host name, no path."""
    return {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": settings.recorded(),
        "cpus": os.cpu_count(),
        # What else keeps the machine busy moves the times.
        "load_average_before": os.getloadavg()[0],
        "software": software(),
        "hardware": hardware(settings.device),
    }


def as_json(result: Result) -> dict[str, Any]:
    """A result as the content of its file."""
    rows = [
        dataclasses.asdict(row) | {"median": row.median, "low": row.low, "high": row.high}
        for row in result.rows
    ]
    benchmark = result.benchmark
    return {
        "benchmark": benchmark.name,
        "sentence": benchmark.sentence,
        "ratio": benchmark.ratio,
        "rows": rows,
        **result.conditions,
    }


def write(folder: Path, result: Result) -> None:
    """Write a result's file, beside those of other benchmarks and earlier runs."""
    content = json.dumps(as_json(result), indent=1).encode()
    write_atomically(folder / f"{result.benchmark.name}.json", lambda file: file.write(content))


def read(folder: Path) -> list[Result]:
    """The results in a folder, in the registry's order.

    Raises:
        InputError: a file is not a benchmark's.
    """
    return [
        _read(path, benchmark)
        for benchmark in BENCHMARKS.values()
        if (path := folder / f"{benchmark.name}.json").is_file()
    ]


def _read(path: Path, benchmark: Benchmark) -> Result:
    try:
        content = json.loads(path.read_text("utf-8"))
        rows = [
            Row(r["name"], tuple(r["ratios"]), r["ideal"], r["series"], r["values"])
            for r in content.pop("rows")
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a result of reproduce bench: remove it") from error
    return Result(benchmark, tuple(rows), content)


def table(results: Iterable[Result]) -> list[dict[str, Any]]:
    """One line for each row, with the columns ``COLUMNS``; ratios to three digits."""
    return [
        dict(zip(COLUMNS, (
            result.benchmark.name, row.name, row.series, result.benchmark.ratio, _short(row.median), _short(row.low),
            _short(row.high), "" if row.ideal is None else _short(row.ideal), len(row.ratios),
            "quick" if result.conditions["settings"]["quick"] else "", _values(row),
        ), strict=True))
        for result in results
        for row in result.rows
    ]  # fmt: skip


def _short(value: float) -> str:
    return f"{value:.3f}" if value < 100 else f"{value:.0f}"


def _values(row: Row) -> str:
    """The medians of both parts, and what else was measured, in words."""
    shown = {
        name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.values.items()
    }
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def write_tables(folder: Path, results: Iterable[Result]) -> None:
    """Write the table as ``bench.csv`` and, with each benchmark's sentence and conditions, as ``bench.md``."""
    results = list(results)
    with (folder / "bench.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(table(results))
    shown = [column for column in COLUMNS if column not in ("benchmark", "ratio", "quick")]
    parts = ["# Benchmarks\n"]
    for result in results:
        lines = [[str(line[column]) for column in shown] for line in table([result])]
        cells = [shown, ["---"] * len(shown), *lines]
        parts.append(f"## {result.benchmark.name}\n\n{result.benchmark.sentence}\n\n{describe(result)}\n")
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n")
    (folder / "bench.md").write_text("\n".join(parts), "utf-8")


def describe(result: Result) -> str:
    """Where and how a result was measured, in a sentence."""
    known = result.conditions
    hard, soft, settings = known["hardware"], known["software"], known["settings"]
    device = hard["gpu_name"] or f"{known['cpus']} cores of {hard['cpu_model']}"
    commit = f"{(soft['git_commit'] or 'unknown')[:12]}{' with changes' if soft['git_dirty'] else ''}"
    return (
        f"Measured{' with --quick, which says little about speed,' if settings['quick'] else ''} on {device}, "
        f"{settings['cpu_threads']} CPU thread for each process, texts: {settings['texts']}; torch {soft['torch_version']}, "
        f"transformers {soft['transformers_version']}, commit {commit}, {known['started_at']}."
    )
