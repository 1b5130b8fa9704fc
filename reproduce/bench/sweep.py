"""A sweep of ``reproduce run`` against one Trainer process for each trial."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from lfreeze.data.loading import load_task
from lfreeze.models.catalog import MODELS
from lfreeze.recipe import Recipe
from reproduce.bench.processes import run_module
from reproduce.bench.spec import Benchmark, Row, alternating, ratio_row
from reproduce.bench.workbench import Workbench
from reproduce.plan.search_space import load_space
from reproduce.store.artifacts import read_folder

MODEL, TASK, SPACE = "tiny-gemma", "tiny-rte", "embedded"
_MOST_AT_ONCE = 8
# Trainer pads dynamically, as the space does.
_RECIPES = {"same padding": (), "bucketed, prefix cached": ("padding=bucketed", "prefix_cache=all")}


def run(bench: Workbench) -> list[Row]:
    """One row for each recipe of the sweep: the same trials on both sides, the same number at once."""
    quick = bench.settings.quick
    strategies = ("ALL", "BOT50") if quick else ("ALL", "LoRA", "INT25", "BOT50", "TOP50", "ADT-L50")
    seeds = range(42, 43 if quick else 46)
    recipe = replace(load_space(SPACE).recipe, cpu_threads=bench.settings.cpu_threads)
    recipe = replace(recipe, steps=10) if quick else recipe
    at_once = max(1, min(_MOST_AT_ONCE, (os.cpu_count() or 1) // recipe.cpu_threads))
    numbers = itertools.count()
    measured = alternating(
        1 if quick else bench.settings.pairs,
        lambda: trainers_seconds(bench, recipe, strategies, seeds, at_once),
        lambda: [
            sweep_seconds(bench, recipe, strategies, seeds, at_once, f"sweep-{next(numbers)}", more)
            for more in _RECIPES.values()
        ],
    )
    n = len(strategies) * len(seeds)
    name = f"{n} trials of {recipe.steps} steps, {at_once} at once"
    return [
        ratio_row(
            f"{name}, {setting}",
            [(theirs, ours[place]) for theirs, ours in measured],
            ("trainer_processes_seconds", "sweep_seconds"),
            trials=n, model=MODEL, task=TASK,
        )
        for place, setting in enumerate(_RECIPES)
    ]  # fmt: skip


def sweep_seconds(
    bench: Workbench,
    recipe: Recipe,
    strategies: tuple[str, ...],
    seeds: range,
    at_once: int,
    name: str,
    more: Sequence[str] = (),
) -> float:
    """Seconds of ``reproduce run``, the report included.

    Args:
        more: further recipe values, as ``--set`` takes them.

    Raises:
        RuntimeError: a trial has no result.
    """
    folder = bench.scratch / name
    options = ["--models", MODEL, "--tasks", TASK, "--strategies", ",".join(strategies)]
    options += ["--seeds", ",".join(map(str, seeds)), "--max-concurrent", str(at_once)]
    values = (f"steps={recipe.steps}", f"cpu_threads={recipe.cpu_threads}", *more)
    options += [word for value in values for word in ("--set", value)]
    seconds = run_module(
        "reproduce", ["run", SPACE, *options, "--artifacts", str(folder)], environment=offline(bench)
    )
    if read_folder(folder).done != len(strategies) * len(seeds):
        raise RuntimeError(f"the sweep in {folder.name} has trials without a result")
    return seconds


def trainers_seconds(
    bench: Workbench, recipe: Recipe, strategies: tuple[str, ...], seeds: range, at_once: int
) -> float:
    """Seconds of one Trainer process for each trial, as many at once; the weights are in the file system's cache."""
    folder = bench.scratch / "trainers"
    folder.mkdir(exist_ok=True)
    files = _write_trials(folder, recipe, strategies, seeds)
    environment = offline(bench) | {"OMP_NUM_THREADS": str(recipe.cpu_threads)}
    one = partial(run_module, "reproduce.bench.trainer_process", environment=environment)
    started = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        try:
            list(pool.map(lambda file: one([str(file)]), files))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return time.perf_counter() - started


def _write_trials(folder: Path, recipe: Recipe, strategies: tuple[str, ...], seeds: range) -> list[Path]:
    data = load_task(TASK, recipe.max_train_examples, 0)
    splits = {"train": data.train, "validation": data.validation}
    texts = {name: [(e.first, e.second, e.label) for e in split] for name, split in splits.items()}
    (folder / "texts.json").write_text(json.dumps(texts), "utf-8")
    common = {
        "model": str(MODELS[MODEL].config_file.parent), "texts": str(folder / "texts.json"), "recipe": asdict(recipe),
        "labels": len(data.task.labels),
    }  # fmt: skip
    files = []
    for seed, strategy in itertools.product(seeds, strategies):
        files.append(folder / f"{strategy}-{seed}.json")
        files[-1].write_text(json.dumps(common | {"seed": seed, "strategy": strategy}), "utf-8")
    return files


def offline(bench: Workbench) -> dict[str, str]:
    """The environment of a process that uses no network, and no cache but the run's own."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "LFREEZE_CACHE": str(bench.scratch / "cache")}


BENCHMARK = Benchmark(
    "sweep",
    "Time of one Trainer process for each trial over that of one sweep of the same trials, from the command to the "
    "report, as many at once.",
    "Trainer processes' time over the sweep's",
    run,
)
