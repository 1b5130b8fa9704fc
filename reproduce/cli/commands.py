"""What each command does, once its arguments are read."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

from lfreeze.errors import InputError
from reproduce.cli.console import print_checks, print_failures
from reproduce.plan.inputs import find_inputs, trial_specs, try_inputs
from reproduce.plan.search_space import SearchSpace, recipe_values
from reproduce.plan.spec import TrialSpec
from reproduce.process import FAILED, OK, end_on_signals
from reproduce.run.gpu_share import choose_share, local_gpu_bytes, parse_share
from reproduce.run.placement import Place, Resources, choose_places, describe_places
from reproduce.run.preflight import require_disk, require_shared_memory
from reproduce.run.ray_session import check_address, ray_session, require_answer
from reproduce.store.artifacts import (
    LOCK_FILE,
    FolderState,
    check_folder,
    exclusive_writer,
    prepare_folder,
    read_folder,
)
from reproduce.store.inputs_lock import check_lock, write_lock


def run_space(
    space: SearchSpace,
    root: Path,
    *,
    data_dir: Path | None,
    address: str | None,
    dashboard: tuple[str, int] | None,
    gpus_per_trial: str,
    max_concurrent: int | None,
    fail_fast: bool,
    accept_inputs: bool,
) -> int:
    """Run what is missing of a space, then report; the exit status."""
    end_on_signals()
    share = parse_share(gpus_per_trial)
    if address is not None:
        check_address(address)
    inputs = find_inputs(space, data_dir)
    specs = trial_specs(space, inputs)
    if not _all_finished(root, specs):
        if address is None:
            share = choose_share(space, share, local_gpu_bytes(), "this machine")
            require_shared_memory()
        try_inputs(space, inputs)
    check_folder(root)
    with exclusive_writer(root):
        if not accept_inputs:
            check_lock(root, inputs)
        prepare_folder(root, specs, recipe_values(space.recipe), accept_inputs=accept_inputs)
        write_lock(root, inputs)
        progress = read_folder(root)
        open_specs = [s for s in specs if not progress.has_result(s)]
        finished = len(specs) - len(open_specs)
        if not open_specs:
            print(f"All {len(specs)} trials are finished already; nothing to run.")
            if (root / "report" / "report.html").is_file():
                print(f"Report: {root / 'report' / 'report.html'}")
            else:
                _report({root: progress}, root / "report")
            return OK
        print(
            f"{space.name}: {len(specs)} trials, {finished} finished already, {len(open_specs)} to run; "
            f"results in {root}"
        )
        require_disk(root, len(open_specs))
        with ray_session(address, dashboard):
            from reproduce.run.sweep import run_sweep

            cpus = space.recipe.cpu_threads
            places: tuple[Place, ...] = (Place(share or 0.0),)
            if address is not None:
                from reproduce.run.node_probe import examine_nodes

                nodes = examine_nodes(inputs, cpus, with_gpus=share != 0)
                places = choose_places(space, share, nodes)
                for line in describe_places(space, nodes, places):
                    print(line)
            if space.exclusive and not any(place.share for place in places):
                max_concurrent = 1
            outcome = run_sweep(
                open_specs,
                inputs,
                root,
                resources=Resources(cpus, places, max_concurrent),
                attempts={s.run_id: progress.attempts(s) + 1 for s in open_specs},
                finished_before=finished,
                fail_fast=fail_fast,
            )
        progress = read_folder(root)
        if progress.table.frame.height:
            _report({root: progress}, root / "report")
    asked = {run_id for s in specs for run_id in s.all_run_ids}
    missing = [w for w in progress.missing if w.run_id in asked]
    for problem in outcome.problems:
        print(f"problem: {problem}")
    print_failures(progress.failed.filter(pl.col("run_id").is_in(list(asked))))
    if missing:
        print(f"{len(missing)} trials have no result; the same command runs them.")
    return FAILED if outcome.failed or outcome.problems or missing else OK


def _all_finished(root: Path, specs: Sequence[TrialSpec]) -> bool:
    try:
        state = read_folder(root)
    except InputError:
        return False
    return all(state.has_result(spec) for spec in specs)


def fetch_space(
    space: SearchSpace, root: Path, data_dir: Path | None, accept_inputs: bool, address: str | None
) -> None:
    """Download what a space reads, try it, and write the lock beside where its artifacts will be.

    With an address, every node of that cluster downloads the models too.
    """
    if address is not None:
        require_answer(address)
    inputs = find_inputs(space, data_dir)
    try_inputs(space, inputs)
    check_folder(root)
    with exclusive_writer(root):
        if not accept_inputs:
            check_lock(root, inputs)
        write_lock(root, inputs)
    for name, checkpoint in inputs.checkpoints.items():
        size = sum(path.stat().st_size for path in checkpoint.files) / 1e9
        print(f"model {name}: {checkpoint.model_id}, {_commit(checkpoint.revision)}, {size:.2f} GB")
    for name, data in inputs.data.items():
        sizes = f"{data.n_available:,} training and {data.n_validation_available:,} validation examples"
        print(f"task {name}: {data.task.dataset_id}, {_commit(data.revision)}, {sizes}")
    print(f"Lock: {root / LOCK_FILE}")
    if address is not None:
        with ray_session(address):
            from reproduce.run.node_probe import fetch_on_nodes

            for node, held in fetch_on_nodes(inputs.cards).items():
                print(f"node {node}: " + ", ".join(f"{m}, {n / 1e9:.2f} GB" for m, n in held.items()))


def _commit(revision: str | None) -> str:
    return f"revision {revision}" if revision else "not from the hub"


def run_one(space: SearchSpace, data_dir: Path | None, as_json: bool) -> int:
    """Run the only trial of a space in this process and print its row; the exit status."""
    inputs = find_inputs(space, data_dir)
    (spec,) = trial_specs(space, inputs)
    try_inputs(space, inputs)
    from reproduce.run.worker import TrialWorker
    from reproduce.store.parquet import trial_frame

    checkpoint = inputs.checkpoints[spec.factors.model]
    result = TrialWorker().run(spec, lambda: checkpoint, inputs.data[spec.factors.task])
    row = trial_frame(result.row).to_dicts()[0]
    if as_json:
        print(json.dumps(row, default=str, indent=1))
    else:
        table = Table(show_header=False, box=None)
        for name, value in row.items():
            if name != "null_reasons" and value is not None:
                table.add_row(name, str(value))
        Console().print(table)
    return OK if row["status"] == "ok" else FAILED


def verify_folder(folder: Path, reference: Path | None, partial: bool, as_json: bool) -> int:
    """Check a folder, print what was found; the exit status."""
    from reproduce.verify import verify

    checks = verify(read_folder(folder), read_folder(reference) if reference else None, partial=partial)
    good = all(check.passed is not False for check in checks)
    if as_json:
        print(
            json.dumps({"passed": good, "checks": [dataclasses.asdict(check) for check in checks]}, indent=1)
        )
    else:
        print_checks(checks)
    return OK if good else FAILED


def publish_folder(folder: Path, out: Path, steps: bool, predictions: bool, incomplete: bool) -> None:
    from reproduce.store.publish import publish

    asked = {"steps": steps, "predictions": predictions}
    tables = tuple(table for table, wanted in asked.items() if wanted)
    progress = read_folder(folder)
    for path in publish(folder, progress, out, tables=tables, incomplete=incomplete):
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def write_report(roots: Sequence[Path], out: Path) -> None:
    _report({root: read_folder(root) for root in roots}, out)


def _report(folders: Mapping[Path, FolderState], out: Path) -> None:
    from reproduce.report import build

    missing = [
        dataclasses.asdict(wanted.factors) for progress in folders.values() for wanted in progress.missing
    ]
    tables = [progress.table for progress in folders.values()]
    summary = build(list(folders), out, command=_command_line(), missing=missing, tables=tables)
    for sentence in summary.headlines:
        print(sentence)
    print(f"Report: {summary.page}")


def _command_line() -> str:
    """The command as typed, without the folders that would name a person or a machine."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return shlex.join(["reproduce", *words])
