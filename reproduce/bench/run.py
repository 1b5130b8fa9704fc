"""Runs benchmarks one after another and writes their results."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from lfreeze.errors import InputError
from reproduce.bench.picture import draw
from reproduce.bench.registry import chosen
from reproduce.bench.results import COLUMNS, Result, as_json, conditions, read, table, write, write_tables
from reproduce.bench.settings import Settings
from reproduce.bench.workbench import Workbench
from reproduce.process import end_on_signals


def run_benchmarks(
    names: Sequence[str],
    out: Path,
    *,
    quick: bool,
    data_dir: Path | None,
    pairs: int | None,
    print_json: bool,
) -> None:
    """Run benchmarks, all of them without a name, and print what they measured.

    Their files, and the table and the picture of everything in the folder, are written after each.

    Raises:
        InputError: a name is unknown, the data folder lacks the task's files, or the results cannot be written.
    """
    end_on_signals()
    benchmarks = chosen(names)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = Settings.chosen(quick=quick, device=device, data_dir=data_dir, pairs=pairs)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out} is no folder that can be written: {error.strerror}") from error
    read(out)
    results = []
    with tempfile.TemporaryDirectory(prefix="lfreeze-bench-") as scratch:
        bench = Workbench(settings, Path(scratch))
        bench.require_texts()
        for benchmark in benchmarks:
            known, started = conditions(settings), time.perf_counter()
            rows = benchmark.run(bench)
            results.append(Result(benchmark, tuple(rows), known | {"seconds": time.perf_counter() - started}))
            print(f"{benchmark.name}: {results[-1].conditions['seconds']:.0f} s", file=sys.stderr, flush=True)
            write(out, results[-1])
            everything = read(out)
            write_tables(out, everything)
            draw(everything, out / "bench")
    if print_json:
        print(json.dumps([as_json(result) for result in results], indent=1))
        return
    _print_table(results)
    print(f"Results: {out}")


def _print_table(results: Sequence[Result]) -> None:
    for result in results:
        shown = Table(
            title=f"{result.benchmark.name}: {result.benchmark.ratio}", box=None, title_justify="left"
        )
        columns = [column for column in COLUMNS if column not in ("benchmark", "ratio", "quick", "values")]
        for column in columns:
            shown.add_column(column, justify="left" if column in ("of", "series") else "right")
        for line in table([result]):
            shown.add_row(*(str(line[column]) for column in columns))
        Console().print(shown)
