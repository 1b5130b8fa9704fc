"""A run in phases: resolve what it reads, check that it can run, execute its trials.

The command line adds the last phase, the report.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reproduce.plan.inputs import SpaceInputs, check_inputs, find_inputs, trial_specs
from reproduce.plan.search_space import SearchSpace, recipe_values
from reproduce.plan.spec import TrialSpec
from reproduce.run.gpu_share import choose_share, local_gpu_bytes
from reproduce.run.placement import NodeGroup, Resources, choose_node_groups, describe_node_groups
from reproduce.run.preflight import require_disk, require_shared_memory
from reproduce.run.ray_session import check_address, ray_session
from reproduce.store.artifacts import FolderState, check_folder, exclusive_writer, prepare_folder, read_folder
from reproduce.store.inputs_lock import check_lock, write_lock

if TYPE_CHECKING:
    from reproduce.run.sweep import SweepOutcome


@dataclass(frozen=True)
class RunOptions:
    """What ``reproduce run`` was called with.

    Attributes:
        root: the artifact folder.
        data_dir: the folder with the benchmarks' own files, if given.
        address: the Ray cluster to join; None for a Ray session of this machine's own.
        dashboard: host and port of that session's dashboard; None for no dashboard.
        gpu_share: the share of a GPU for each trial; None to choose one that fits.
        max_concurrent: the number of trials at once; None for as many as fit.
        fail_fast: whether the first failed trial ends the sweep.
        accept_inputs: whether models and data may differ from the input lock.
    """

    space: SearchSpace
    root: Path
    data_dir: Path | None = None
    address: str | None = None
    dashboard: tuple[str, int] | None = None
    gpu_share: float | None = None
    max_concurrent: int | None = None
    fail_fast: bool = False
    accept_inputs: bool = False


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
        gpu_share: the share of a GPU for each trial; None to choose one from the cluster's GPUs.
    """

    run: ResolvedRun
    specs: tuple[TrialSpec, ...]
    attempts: Mapping[str, int]
    before: FolderState | None
    gpu_share: float | None

    @property
    def finished(self) -> int:
        """The number of trials that need no run."""
        return len(self.run.specs) - len(self.specs)


def resolve(options: RunOptions) -> ResolvedRun:
    """Find the models and data of a run; files that the cache lacks are downloaded from the hub.

    Raises:
        InputError: the address is malformed, or a model or task is missing or malformed.
    """
    if options.address is not None:
        check_address(options.address)
    inputs = find_inputs(options.space, options.data_dir)
    return ResolvedRun(options, inputs, tuple(trial_specs(options.space, inputs)))


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
        if is_new and [path.name for path in root.iterdir()] == [".lock"]:
            shutil.rmtree(root)


def preflight(run: ResolvedRun) -> PendingRun:
    """Check that this machine can run the missing trials, then register them in the folder, held for writing.

    Raises:
        InputError: a model does not fit its texts or strategies; GPUs, shared memory or disk do not suffice;
            or the folder belongs to another recipe or other inputs.
    """
    options, root = run.options, run.options.root
    before = read_folder(root) if (root / "trials").is_dir() else None
    specs = tuple(spec for spec in run.specs if before is None or not before.has_result(spec))
    attempts = {spec.run_id: 1 + (before.attempts(spec) if before else 0) for spec in specs}
    share = options.gpu_share
    if specs:
        if options.address is None:
            share = choose_share(options.space, share, local_gpu_bytes(), "this machine")
            require_shared_memory()
        require_disk(root, len(specs))
        check_inputs(options.space, run.inputs)
    if not options.accept_inputs:
        check_lock(root, run.inputs)
    recipe = recipe_values(options.space.recipe)
    prepare_folder(root, run.specs, recipe, accept_inputs=options.accept_inputs)
    write_lock(root, run.inputs)
    return PendingRun(run, specs, attempts, before, share)


def execute(pending: PendingRun) -> SweepOutcome:
    """Run the missing trials on Ray and write each one's files as it ends.

    Raises:
        InputError: the cluster cannot be joined, or its nodes cannot run the trials.
    """
    run, options = pending.run, pending.run.options
    with ray_session(options.address, options.dashboard):
        from reproduce.run.sweep import run_sweep

        groups = _node_groups(pending)
        # Trials that measure speed run one at a time where no GPU keeps them apart.
        one_at_a_time = options.space.exclusive and not any(group.share for group in groups)
        return run_sweep(
            pending.specs,
            run.inputs,
            options.root,
            resources=Resources(
                options.space.recipe.cpu_threads, groups, 1 if one_at_a_time else options.max_concurrent
            ),
            attempts=pending.attempts,
            finished_before=pending.finished,
            fail_fast=options.fail_fast,
        )


def _node_groups(pending: PendingRun) -> tuple[NodeGroup, ...]:
    """Where the trials run: on this machine, or on a cluster's nodes once they have been examined."""
    options = pending.run.options
    if options.address is None:
        return (NodeGroup(pending.gpu_share or 0.0),)
    from reproduce.run.node_probe import examine_nodes

    share, cpus = pending.gpu_share, options.space.recipe.cpu_threads
    nodes = examine_nodes(pending.run.inputs, cpus, with_gpus=share != 0)
    groups = choose_node_groups(options.space, share, nodes)
    for line in describe_node_groups(options.space, nodes, groups):
        print(line)
    return groups
