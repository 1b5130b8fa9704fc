"""A run in phases: resolve what it reads, check that it can run, execute its trials.

The command line adds the last phase, the report.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lfreeze.errors import InputError
from reproduce.plan.inputs import SpaceInputs, check_inputs, find_inputs, trial_specs
from reproduce.plan.lengths import known_lengths
from reproduce.plan.search_space import SearchSpace, recipe_values
from reproduce.plan.shards import Shard
from reproduce.plan.spec import TrialSpec
from reproduce.run.classes import Division, RunClass, divide, this_machine
from reproduce.run.machine import checks_of_machine
from reproduce.run.outcome import SweepOutcome, write_skipped
from reproduce.run.placement import Resources
from reproduce.run.preflight import require_address_space, require_disk, require_short_paths
from reproduce.run.ray_session import check_address, ray_session
from reproduce.run.results import SweepOptions
from reproduce.run.trackers import TrialRuns, require_trackers
from reproduce.store.artifacts import FolderState, check_folder, prepare_folder, read_folder
from reproduce.store.contents import checked_contents
from reproduce.store.folder_lock import exclusive_writer
from reproduce.store.inputs_lock import check_lock, write_lock
from reproduce.store.manifest import MANIFEST_FILE
from reproduce.store.rebuild import restore_manifest
from reproduce.terminal import say


@dataclass(frozen=True)
class RunOptions:
    """What ``reproduce run`` was called with.

    Attributes:
        root: the artifact folder.
        data_dir: the folder with the benchmarks' own files, if given.
        address: the Ray cluster to join; None for a Ray session of this machine's own.
        dashboard: host and port of that session's dashboard; None for no dashboard.
        gpu_share: the share of a GPU for every trial; None for the one that each is predicted to need.
        what_fits: whether trials that do not fit the GPUs are skipped, instead of refused.
        max_concurrent: the number of trials at once; None for as many as fit.
        fail_fast: whether the first failed trial ends the sweep.
        accept_inputs: whether models and data may differ from the input lock.
        engine: ``"ray"``, or ``"inline"`` for one trial after another in this process.
        shard: the part of the space to run; None for all of it.
        log_to: the experiment trackers that receive each trial.
        canary: after this many finished trials, the first one runs again; None for no repeats.
    """

    space: SearchSpace
    root: Path
    data_dir: Path | None = None
    address: str | None = None
    dashboard: tuple[str, int] | None = None
    gpu_share: float | None = None
    what_fits: bool = False
    max_concurrent: int | None = None
    fail_fast: bool = False
    accept_inputs: bool = False
    engine: str = "ray"
    shard: Shard | None = None
    log_to: tuple[str, ...] = ()
    canary: int | None = None

    @property
    def inline(self) -> bool:
        return self.engine == "inline"


@dataclass(frozen=True)
class ResolvedRun:
    """A run whose models and data are found and whose trials are known, in the order of running."""

    options: RunOptions
    inputs: SpaceInputs
    specs: tuple[TrialSpec, ...]


@dataclass(frozen=True)
class PendingRun:
    """A run that can start.

    Attributes:
        specs: the trials without a successful row, in the order of running.
        attempts: by run id, the number of the next attempt, from 1.
        before: the state of the artifact folder; None for a new folder.
        division: which of them run side by side on this machine, and which do not fit; None on a cluster, whose
            GPUs are not known yet.
    """

    run: ResolvedRun
    specs: tuple[TrialSpec, ...]
    attempts: Mapping[str, int]
    before: FolderState | None
    division: Division | None

    @property
    def finished(self) -> int:
        """The number of trials that need no run."""
        return len(self.run.specs) - len(self.specs)


def resolve(options: RunOptions) -> ResolvedRun:
    """Find the models and data of a run; files that the cache lacks are downloaded from the hub.

    Raises:
        InputError: the address is malformed, this machine allows too little address space, the engine lacks an option, a tracker is not installed, or a model or
            task is missing or malformed.
    """
    if options.address is None:
        # Before torch is loaded, which needs much of it.
        require_address_space(with_ray=not options.inline)
    if options.inline:
        _require_inline(options)
    elif options.address is not None:
        check_address(options.address)
    else:
        require_short_paths()
    require_trackers(options.log_to)
    inputs = find_inputs(options.space, options.data_dir)
    specs = tuple(trial_specs(options.space, inputs))
    return ResolvedRun(options, inputs, options.shard.of(specs) if options.shard else specs)


def _require_inline(options: RunOptions) -> None:
    """Refuse what only Ray has."""
    refused = {
        "--address": options.address is not None,
        "--dashboard": options.dashboard is not None,
        f"--max-concurrent {options.max_concurrent}": (options.max_concurrent or 1) > 1,
        f"--gpus-per-trial {options.gpu_share or 0:g}": (options.gpu_share or 0) > 1,
    }
    for option in (option for option, is_set in refused.items() if is_set):
        raise InputError(
            f"{option} needs --engine ray: --engine inline trains one trial after another in this process, on one GPU "
            "at most"
        )


@contextlib.contextmanager
def opened_folder(root: Path) -> Iterator[None]:
    """Hold the artifact folder for writing; remove a new one again if nothing was written to it.

    Raises:
        InputError: the folder holds something else, is not writable, or another sweep writes to it.
    """
    is_new = not root.exists()
    check_folder(root)
    try:
        with exclusive_writer(root):
            yield
    finally:
        if is_new and root.is_dir() and [path.name for path in root.iterdir()] == [".lock"]:
            shutil.rmtree(root)


def preflight(run: ResolvedRun) -> PendingRun:
    """Check that this machine can run the missing trials, then register them in the folder, held for writing.

    Raises:
        InputError: a model does not fit its texts or strategies; GPUs, memory, disk, processes or the size of files
            do not suffice; or the folder belongs to another recipe or other inputs.
    """
    options, root = run.options, run.options.root
    if restored := restore_manifest(root):
        say(restored, err=True)
    before = read_folder(root) if (root / MANIFEST_FILE).is_file() else None
    if before is not None:
        # A trial whose steps or predictions are damaged runs again.
        before = replace(before, table=checked_contents(before.table))
    specs = tuple(spec for spec in run.specs if before is None or not before.has_result(spec))
    attempts = {spec.run_id: 1 + (before.attempts(spec) if before else 0) for spec in specs}
    division = None
    if specs:
        if options.address is None:
            wanted = {spec.factors for spec in specs}
            nodes = this_machine(one_gpu=options.inline)
            lengths = known_lengths(options.space, options.data_dir)
            division = divide(
                options.space,
                nodes,
                options.gpu_share,
                wanted,
                "this machine",
                what_fits=options.what_fits,
                alone=options.inline,
                lengths=lengths,
            )
            checks = checks_of_machine(
                options.space,
                division,
                nodes,
                root,
                inline=options.inline,
                max_concurrent=options.max_concurrent,
                lengths=lengths,
            )
            for check in checks.values():
                check()
        else:
            require_disk(root, len(specs))
        check_inputs(options.space, run.inputs)
    if not options.accept_inputs:
        check_lock(root, run.inputs)
    recipe = recipe_values(options.space.recipe)
    prepare_folder(root, run.specs, recipe, accept_inputs=options.accept_inputs)
    write_lock(root, run.inputs, replace_damaged=options.accept_inputs)
    return PendingRun(run, specs, attempts, before, division)


def execute(pending: PendingRun) -> SweepOutcome:
    """Run the missing trials, on Ray class by class, and write each one's files as it ends.

    Raises:
        InputError: the cluster cannot be joined, or its nodes cannot run the trials.
    """
    options, division = pending.run.options, pending.division
    if division is not None and not division.classes:
        _skip(pending, division)
        return SweepOutcome()
    if division is not None and options.inline:
        from reproduce.run.inline import run_inline

        _skip(pending, division)
        ((share, trials),) = [(each.groups[0].share, each.trials) for each in division.classes]
        return run_inline(
            [spec for spec in pending.specs if spec.factors in trials],
            pending.run.inputs,
            options.root,
            _sweep_options(pending, division),
            gpu_share=share,
        )
    with ray_session(options.address, options.dashboard):
        from reproduce.run.sweep import SweepClass, run_sweep

        division = division or _divided_cluster(pending)
        _skip(pending, division)
        return run_sweep(
            [
                SweepClass(
                    [spec for spec in pending.specs if spec.factors in each.trials],
                    _resources(options, each),
                )
                for each in division.classes
            ],
            pending.run.inputs,
            options.root,
            _sweep_options(pending, division),
        )


def _sweep_options(pending: PendingRun, division: Division) -> SweepOptions:
    options = pending.run.options
    return SweepOptions(
        attempts=pending.attempts,
        finished_before=pending.finished,
        skipped=len(division.too_large),
        fail_fast=options.fail_fast,
        loggers=[TrialRuns(tracker) for tracker in options.log_to],
        canary=options.canary,
    )


def _divided_cluster(pending: PendingRun) -> Division:
    """The classes of the trials on a cluster, once its nodes have been examined."""
    from reproduce.run.node_probe import examine_nodes

    options, wanted = pending.run.options, {spec.factors for spec in pending.specs}
    cpus, share = options.space.cpu_threads, options.gpu_share
    nodes = examine_nodes(pending.run.inputs, cpus, with_gpus=share != 0)
    lengths = known_lengths(options.space, options.data_dir)
    return divide(
        options.space, nodes, share, wanted, "this cluster", what_fits=options.what_fits, lengths=lengths
    )


def _skip(pending: PendingRun, division: Division) -> None:
    """Say which trials run side by side, and write the rows of those that do not fit."""
    for line in division.lines:
        say(line, indent=2)
    known = pending.before.skipped if pending.before else None
    told = dict(known.select("run_id", "error_message").iter_rows()) if known is not None else {}
    for spec in pending.specs:
        reason = division.too_large.get(spec.factors)
        if reason is not None and told.get(spec.run_id) != reason:
            write_skipped(pending.run.options.root, spec, reason, attempts=pending.attempts[spec.run_id] - 1)


def _resources(options: RunOptions, each: RunClass) -> Resources:
    # Trials that measure speed run one at a time where no GPU keeps them apart.
    one_at_a_time = options.space.exclusive and not any(group.share for group in each.groups)
    return Resources(options.space.cpu_threads, each.groups, 1 if one_at_a_time else options.max_concurrent)
