"""The commands, called with parsed arguments."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from lfreeze.errors import InputError
from reproduce.cli.console import print_checks, print_failures
from reproduce.cli.trial_result import print_result
from reproduce.plan.inputs import check_inputs, find_inputs, trial_specs
from reproduce.plan.search_space import SearchSpace
from reproduce.plan.spec import value_text
from reproduce.process import FAILED, OK, garbage_kept
from reproduce.run.pipeline import PendingRun, RunOptions, execute, opened_folder, preflight, resolve
from reproduce.run.ray_session import ray_session, require_answer
from reproduce.store.artifacts import (
    LOCK_FILE,
    FolderState,
    check_folder,
    read_folder,
)
from reproduce.store.folder_lock import exclusive_writer
from reproduce.store.inputs_lock import check_lock, write_lock
from reproduce.store.merge import joined_state, merge, require_apart
from reproduce.store.references import reference_path
from reproduce.store.trial_row import TrialRow
from reproduce.terminal import say
from reproduce.verify import Check, verify
from reproduce.verify.archive import archived
from reproduce.verify.differences import CELL, RECIPE

if TYPE_CHECKING:
    from reproduce.run.outcome import SweepOutcome


def run_space(options: RunOptions, *, reports: bool = True) -> int:
    """Run the missing trials of a space, then report unless told not to; the exit status."""
    run = resolve(options)
    part = f"{options.space.name}, shard {options.shard}" if options.shard else options.space.name
    if not run.specs:
        say(f"{part}: no trial of the space is in this shard; nothing to run.")
        return OK
    with opened_folder(options.root):
        with garbage_kept():
            pending = preflight(run)
        if not pending.specs:
            say(f"All {len(run.specs):,} trials are finished already; nothing to run.")
            return _report_finished(pending) if reports else OK
        say(
            f"{part}: {len(run.specs):,} trials, {pending.finished:,} finished already, "
            f"{len(pending.specs):,} to run; results in {options.root}"
        )
        outcome = execute(pending)
        if outcome.unwritable:
            # It has been said, and a report would fail where a trial's files did.
            return FAILED
        return _close(pending, outcome, reports)


def _report_finished(pending: PendingRun) -> int:
    """Name the report of a folder that needs no run, and write it if there is none of its present trials."""
    root = pending.run.options.root
    page = root / "report" / "report.html"
    written = max((path.stat().st_mtime for path in (root / "trials").rglob("*.parquet")), default=0.0)
    if page.is_file() and page.stat().st_mtime >= written:
        say(f"Report: {page}")
    else:
        _report({root: pending.before or read_folder(root)}, root / "report")
    return OK


def _close(pending: PendingRun, outcome: SweepOutcome, reports: bool) -> int:
    """Write the report of a sweep that ran, and name its problems, failures and missing trials."""
    root = pending.run.options.root
    after = read_folder(root)
    if reports and after.table.frame.height:
        _report({root: after}, root / "report")
    run_ids = {run_id for spec in pending.run.specs for run_id in spec.all_run_ids}
    missing = sum(trial.run_id in run_ids for trial in after.missing)
    if outcome.repeats:
        times = "once" if outcome.repeats == 1 else f"{outcome.repeats:,} times"
        say(f"The first trial was repeated {times}, with the same numbers to the last bit.")
    for problem in outcome.problems:
        say(f"problem: {problem}")
    print_failures(after.failed.filter(pl.col("run_id").is_in(list(run_ids))))
    skipped = after.skipped.filter(pl.col("run_id").is_in(list(run_ids))).height
    if skipped:
        say(f"{skipped:,} trials were skipped, since they do not fit; they run where they fit.")
    if missing:
        say(f"{missing:,} trials have no result; run the same command again to run them.")
    return FAILED if outcome.failed or outcome.problems or missing else OK


def fetch_space(
    space: SearchSpace, root: Path, data_dir: Path | None, accept_inputs: bool, address: str | None
) -> None:
    """Download and check the models and data of a space, and write the input lock into its artifact folder.

    With an address, every node of that cluster downloads the models too.
    """
    if address is not None:
        require_answer(address)
    inputs = find_inputs(space, data_dir)
    with garbage_kept():
        check_inputs(space, inputs)
    check_folder(root)
    with exclusive_writer(root):
        if not accept_inputs:
            check_lock(root, inputs)
        write_lock(root, inputs, replace_damaged=accept_inputs)
    for name, checkpoint in inputs.checkpoints.items():
        size = sum(path.stat().st_size for path in checkpoint.files) / 1e9
        say(f"model {name}: {checkpoint.model_id}, {_commit(checkpoint.revision)}, {size:.2f} GB")
    for name in inputs.data:
        data = inputs.splits(name)
        examples = f"{data.n_available:,} training and {data.n_validation_available:,} validation examples"
        say(f"task {name}: {data.task.dataset_id}, {_commit(data.revision)}, {examples}")
    say(f"Input lock: {root / LOCK_FILE}")
    if address is not None:
        with ray_session(address):
            from reproduce.run.node_probe import fetch_on_nodes

            for node, sizes in fetch_on_nodes(inputs.cards).items():
                models = ", ".join(f"{model}, {size / 1e9:.2f} GB" for model, size in sizes.items())
                say(f"node {node}: {models}")


def _commit(revision: str | None) -> str:
    return f"revision {revision}" if revision else "not from the hub"


def run_one(space: SearchSpace, data_dir: Path | None, as_json: bool, artifacts: Path | None = None) -> int:
    """Run the only trial of a space in this process and print its result; the exit status.

    Args:
        artifacts: the folder for its files; there already, it is not run again.
    """
    for name, listed in space.grid.items():
        if len(listed) > 1:
            values = ", ".join(map(value_text, listed))
            raise InputError(
                f"space {space.name} has {name} = {values}: name one of them with --set {name}=VALUE"
            )
    row = _trained(space, data_dir) if artifacts is None else _stored(space, data_dir, artifacts)
    if row is None:
        return FAILED
    if as_json:
        print(json.dumps(row, default=str, indent=1))
    else:
        print_result(TrialRow.from_columns(row))
    return OK if row["status"] == "ok" else FAILED


def _trained(space: SearchSpace, data_dir: Path | None) -> dict[str, Any]:
    inputs = find_inputs(space, data_dir)
    (spec,) = trial_specs(space, inputs)
    with garbage_kept():
        check_inputs(space, inputs)
    from reproduce.run.worker import TrialWorker
    from reproduce.store.parquet import trial_frame

    checkpoint = inputs.checkpoints[spec.factors.model]
    data = inputs.data[spec.factors.task][spec.factors.data_key]
    return trial_frame(TrialWorker().run(spec, lambda: checkpoint, data).row).to_dicts()[0]


def _stored(space: SearchSpace, data_dir: Path | None, root: Path) -> dict[str, Any] | None:
    """The row of the only trial of a space in an artifact folder, which it is trained into if it is not there.

    None if its files cannot be written there.
    """
    from reproduce.run.gpus import usable_gpus

    # As without a folder, on the device that there is.
    share = None if usable_gpus() else 0.0
    run = resolve(RunOptions(space, root, data_dir, engine="inline", gpu_share=share))
    with opened_folder(root):
        with garbage_kept():
            pending = preflight(run)
        if pending.specs and execute(pending).unwritable:
            return None
        if not pending.specs:
            say(f"The trial is in {root} already; nothing to run.", err=True)
    rows = read_folder(root).table.frame
    (row,) = rows.filter(pl.col("run_id").is_in(run.specs[0].all_run_ids)).drop("artifacts").to_dicts()
    return row


def verify_folders(folders: Sequence[Path], reference: Path | None, partial: bool, as_json: bool) -> int:
    """Check folders as one and print the results; the exit status.

    Without a reference, they are compared with the published results of their space, if there are any.
    """
    state = joined_state(folders)
    checks = archived([*folders, *([reference] if reference else [])])
    if reference is None:
        there, origin = _published_reference(state)
        checks += [*verify(state, there, partial=True), origin]
    else:
        checks += verify(state, read_folder(reference), partial=partial)
    good = all(check.passed is not False for check in checks)
    if as_json:
        print(
            json.dumps({"passed": good, "checks": [dataclasses.asdict(check) for check in checks]}, indent=1)
        )
    else:
        print_checks(checks)
    return OK if good else FAILED


def _published_reference(state: FolderState) -> tuple[FolderState | None, Check]:
    """The published results of the folder's space, and a note that says what the folder is compared with.

    A run with ``--set`` or with other models is no run of the space, and is compared with nothing.
    """
    trials = state.table.frame
    spaces = sorted(set(trials["space"]))
    path = reference_path(spaces[0]) if len(spaces) == 1 else None
    if path is None:
        sentence = f"no results of {' or '.join(spaces) or 'its space'} are published: nothing is compared"
        return None, Check("against", None, f"{sentence}; --against names a reference")
    reference = read_folder(path)
    trial = [*CELL, *RECIPE]
    if trials.join(reference.table.frame, on=trial, how="semi", nulls_equal=True).is_empty():
        sentence = f"the published results of {spaces[0]} have none of these trials with this recipe: nothing is compared"
        return None, Check("against", None, sentence)
    return reference, Check("against", None, f"compared with the published results of {spaces[0]}")


def publish_folders(
    folders: Sequence[Path], out: Path, steps: bool, predictions: bool, evaluations: bool, incomplete: bool
) -> None:
    """Write the trials of folders into a few files in a new folder, and print their sizes."""
    from reproduce.store.publish import publish

    options = {"steps": steps, "predictions": predictions, "evaluations": evaluations}
    tables = tuple(table for table, included in options.items() if included)
    for path in publish(folders, joined_state(folders), out, tables=tables, incomplete=incomplete):
        say(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def merge_folders(folders: Sequence[Path], into: Path) -> None:
    """Join artifact folders in one, and print what it holds."""
    require_apart(folders, into)
    with opened_folder(into):
        copied = merge(folders, into)
    state = read_folder(into)
    say(
        f"{into}: {len(state.listed):,} trials, {state.done:,} done, {len(state.missing):,} missing; "
        f"{copied:,} trials copied from {len(folders)} folders"
    )


def write_report(roots: Sequence[Path], out: Path) -> None:
    """Write the report of artifact folders to ``out``."""
    _report({root: read_folder(root) for root in roots}, out)


def _report(folders: Mapping[Path, FolderState], out: Path) -> None:
    from reproduce.report import build

    missing = [
        {**wanted.factors.cell, "point": wanted.factors.grid, "run_id": wanted.run_id}
        for progress in folders.values()
        for wanted in progress.missing
    ]
    tables = [progress.table for progress in folders.values()]
    summary = build(list(folders), out, command=_command_line(), missing=missing, tables=tables)
    for sentence in summary.headlines:
        say(sentence)
    say(f"Report: {summary.page}")


def _command_line() -> str:
    """The command as typed, without the folders that would name a person or a machine."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return shlex.join(["reproduce", *words])
