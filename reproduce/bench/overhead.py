"""Where a warm trial's time goes, and whether the driver's memory grows with the number of trials."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from reproduce.bench.processes import resident_bytes, run_module
from reproduce.bench.spec import Benchmark, Row
from reproduce.bench.sweep import offline
from reproduce.bench.workbench import Workbench
from reproduce.store.artifacts import read_folder

_TINY = ("steps=8", "max_train_examples=32", "max_validation_examples=16", "batch_size=8")
_QUICK_GRID = ("--models", "tiny-gemma", "--tasks", "tiny-cb", "--strategies", "ALL,BOT50,INT25",
               "--seeds", "0,1,2,3,4,5,6,7,8,9")  # fmt: skip
_FROM = 10  # trials, after which the driver has loaded what it needs
_POINTS = (30, 100, 400, 1275)
# A Gemma of 245 million parameters.
_LARGE = {
    "model_type": "gemma", "hidden_size": 1024, "num_hidden_layers": 16, "intermediate_size": 4096,
    "num_attention_heads": 16, "num_key_value_heads": 1, "head_dim": 64, "vocab_size": 8_000,
    "hidden_act": "gelu_pytorch_tanh", "max_position_embeddings": 512, "pad_token_id": 0,
}  # fmt: skip
_LARGE_STEPS = 20
_PARTS = {
    "training": pl.col("train_seconds"),
    "evaluation": pl.col("eval_seconds"),
    "set-up and clean-up": pl.col("setup_seconds"),
    "between two trials": pl.col("gap_seconds"),
    "outside training and evaluation": pl.col("setup_seconds") + pl.col("gap_seconds"),
}


def run(bench: Workbench) -> list[Row]:
    """Rows for the parts of a tiny trial's time, the driver's memory and, in full, for a trial of a large model."""
    memory, folder = dict[int, int](), bench.scratch / "overhead"

    def watch(pid: int) -> None:
        memory[sum(1 for _ in folder.glob("trials/*/*/*/*.parquet"))] = resident_bytes(pid)

    grid = _QUICK_GRID if bench.settings.quick else ()
    options = ["embedded-full", *grid, *_settings(*_TINY, _threads(bench))]
    run_module(
        "reproduce",
        ["run", *options, "--artifacts", str(folder)],
        environment=offline(bench),
        watch=watch,
        every=0.1,
    )
    rows = _time_rows(folder, "tiny trial", _PARTS) + _memory_rows(memory)
    return rows if bench.settings.quick else rows + _large(bench)


def _threads(bench: Workbench) -> str:
    return f"cpu_threads={bench.settings.cpu_threads}"


def _settings(*values: str) -> list[str]:
    return [word for value in values for word in ("--set", value)]


def _time_rows(folder: Path, series: str, parts: dict[str, pl.Expr]) -> list[Row]:
    """For each part of a warm trial its share of the trial's time, the wait before it included."""
    trials = read_folder(folder).rows.filter((pl.col("status") == "ok") & (pl.col("worker_trial_index") > 0))
    whole = pl.col("total_seconds") + pl.col("gap_seconds")
    rows = []
    for name, part in parts.items():
        seconds = trials.select(part.alias("part"), whole.alias("whole")).rows()
        ratios = tuple(round(a / b, 5) for a, b in seconds)
        median = statistics.median(a for a, _ in seconds)
        rows.append(Row(f"{series}: {name}", ratios, values={"seconds": median, "trials": len(seconds)}))
    return rows


def _memory_rows(memory: dict[int, int]) -> list[Row]:
    """The driver's memory after so many trials over that after the first few.

    The last value is from before the last trial's file, since the report, which follows it, loads more.
    """
    seen = sorted(memory)[:-1]
    start = next(n for n in seen if n >= _FROM)
    return [
        Row(
            f"driver's memory: {n} trials over {start}",
            (memory[n] / memory[start],),
            1.0,
            values={"bytes": memory[n], "bytes_before": memory[start]},
        )
        for n in _reached(seen)
        if n > start
    ]


def _reached(seen: Sequence[int]) -> list[int]:
    """The numbers of trials to report: the first at or past each point, and the last."""
    first = [next((n for n in seen if n >= point), seen[-1]) for point in _POINTS]
    return list(dict.fromkeys(first))


def _large(bench: Workbench) -> list[Row]:
    """The share of a warm trial's time on the CPU that is outside training and evaluation, at a gigabyte of weights."""
    model, folder = bench.scratch / "large", bench.scratch / "overhead-large"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(_LARGE), "utf-8")
    options = [
        "--models",
        "large",
        "--model-path",
        f"large={model}",
        "--weights",
        "random",
        "--tasks",
        "tiny-rte",
    ]
    options += [
        "--strategies",
        "ALL,BOT50",
        "--seeds",
        "42,43",
        "--max-concurrent",
        "1",
        "--gpus-per-trial",
        "0",
    ]
    options += _settings(
        f"steps={_LARGE_STEPS}", "batch_size=8", "max_validation_examples=64", _threads(bench)
    )
    run_module(
        "reproduce", ["run", "embedded", *options, "--artifacts", str(folder)], environment=offline(bench)
    )
    name = "outside training and evaluation"
    return _time_rows(folder, f"1 GB of weights, {_LARGE_STEPS} steps", {name: _PARTS[name]})


BENCHMARK = Benchmark(
    "overhead",
    "Parts of a warm trial's time over the whole, the wait before it included; the driver's resident memory after "
    "many trials over that after a few.",
    "part over whole; memory over memory",
    run,
)
