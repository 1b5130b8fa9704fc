"""``reproduce doctor``: what would keep a space from running on this machine, and how to fix it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.text import Text

from lfreeze.errors import InputError
from reproduce.plan.cost import GIB
from reproduce.plan.lengths import known_lengths
from reproduce.plan.search_space import SearchSpace
from reproduce.process import FAILED, OK
from reproduce.run.classes import Division, RunClass, divide, this_machine
from reproduce.run.doctor_inputs import Finding, downloads, fit_findings, model_findings, task_findings
from reproduce.run.machine import checks_of_machine
from reproduce.run.placement import Node, NodeGroup
from reproduce.run.preflight import require_address_space
from reproduce.store.provenance import driver_version
from reproduce.terminal import PlainTable, say, show

_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


def examine(
    space: SearchSpace,
    root: Path,
    data_dir: Path | None,
    gpu_memory_gib: float | None = None,
    gpu_share: float | None = None,
) -> int:
    """Check everything that a space needs and print the results; status 1 if there is a problem.

    Args:
        gpu_memory_gib: the memory of a GPU that the run will have and this machine has not, as on the login node of
            a cluster.
        gpu_share: the share of a GPU for every trial, as for a run; None for the one that each is predicted to need.
    """
    # Before torch is loaded, which needs much of it.
    require_address_space(with_ray=False)
    checks: list[Callable[[], Iterator[Finding]]] = [
        lambda: _device(gpu_memory_gib),
        lambda: _machine(space, root, data_dir, gpu_memory_gib, gpu_share),
        lambda: _folders(space, root),
        lambda: model_findings(space),
        lambda: task_findings(space, data_dir),
        lambda: fit_findings(space, data_dir),
    ]
    findings = [finding for check in checks for finding in check()]
    table = PlainTable(box=None, header_style="bold")
    table.add_column("check", no_wrap=True)
    table.add_column("")
    table.add_column("result", overflow="fold")
    for finding in findings:
        table.add_row(finding.subject, Text(finding.level, _STYLES[finding.level]), finding.text)
    show(table)
    problems = sum(finding.level == "problem" for finding in findings)
    say(
        f"{space.name}: {problems} problem{'s' * (problems != 1)} to solve."
        if problems
        else f"{space.name}: this machine can run it."
    )
    return FAILED if problems else OK


def _device(gpu_memory_gib: float | None) -> Iterator[Finding]:
    """The GPUs that torch can use here, and why it can use none."""
    import torch

    driver = driver_version()
    built = torch.version.cuda
    yield Finding("torch", "ok", f"{torch.__version__}, built for {'CUDA ' + built if built else 'the CPU'}")
    if gpu_memory_gib is not None:
        yield Finding("GPU", "note", f"not this machine's: one with {gpu_memory_gib:g} GiB (--gpu-memory)")
    elif torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            fast = (gpu.major, gpu.minor) >= (8, 0)
            text = f"{gpu.name}, {gpu.total_memory / GIB:.1f} GiB, driver {driver or 'unknown'}"
            text += "" if fast else ", no bf16 units: use --set precision=fp32"
            yield Finding(f"GPU {index}", "ok" if fast else "note", text)
    elif driver and not built:
        cause = (
            f"the NVIDIA driver {driver} is installed, but torch is a CPU build: install torch's CUDA build"
        )
        yield Finding("GPU", "note", f"none: {cause}")
    elif driver:
        cause = f"torch for CUDA {built} cannot use the driver {driver}: install a newer driver, or a torch built for an older CUDA"
        yield Finding("GPU", "note", f"none: {cause}")
    else:
        yield Finding("GPU", "note", "none (a container needs --gpus all to see GPUs)")


def _machine(
    space: SearchSpace, root: Path, data_dir: Path | None, gpu_memory_gib: float | None, share: float | None
) -> Iterator[Finding]:
    """What a run checks before it starts: the GPUs, then this machine, unless another one is to run the space."""
    nodes, where = this_machine(), "this machine"
    if gpu_memory_gib is not None:
        where = "the machine of the run"
        nodes = [Node(where, where, 0, (("GPU", int(gpu_memory_gib * GIB)),))]
    lengths = None
    # The checks of single models and tasks report texts that cannot be read.
    with contextlib.suppress(InputError):
        lengths = known_lengths(space, data_dir)
    try:
        division = divide(space, nodes, share, space.factors(), where, lengths=lengths)
    except InputError as error:
        yield Finding("trials", "problem", str(error))
        # What else this machine lacks, as if it had one GPU that suffices.
        division = Division((RunClass(frozenset(space.factors()), (NodeGroup(1.0),)),), {})
    else:
        lines = division.lines or ("all run on the CPU",)
        for line in lines:
            yield Finding("trials", "ok", line)
    if gpu_memory_gib is not None:
        return
    try:
        checks = checks_of_machine(space, division, nodes, root, lengths=lengths)
    except InputError as error:
        yield Finding("memory", "problem", str(error))
        return
    for subject, check in checks.items():
        try:
            yield Finding(subject, "ok", check())
        except InputError as error:
            yield Finding(subject, "problem", str(error))


def _folders(space: SearchSpace, root: Path) -> Iterator[Finding]:
    """The folders that are written to: room for downloads and encoded texts, and permission."""
    from huggingface_hub import constants

    from lfreeze.data.encoding_cache import cache_folder

    due = sum(download.left for download in downloads(space).values())
    for subject, folder, need, advice in (
        ("artifacts", root, 0, "name another folder with --artifacts"),
        ("hub cache", Path(constants.HF_HUB_CACHE), due, "set HF_HOME to another folder"),
        ("encoding cache", cache_folder(), 50_000_000, "set LFREEZE_CACHE to another folder"),
    ):
        # Not Path.is_dir, which fails below a folder that cannot be entered.
        exists = next(p for p in (folder.absolute(), *folder.absolute().parents) if os.path.isdir(p))
        free = shutil.disk_usage(exists).free
        text = f"{folder}: {free / 1e9:.1f} GB free, about {need / 1e9:.2f} GB needed"
        if os.path.exists(folder) and not os.path.isdir(folder):
            yield Finding(subject, "problem", f"{folder} is not a folder: {advice}")
        elif not os.access(exists, os.W_OK):
            # Texts can be encoded without a cache, and what is not downloaded needs none.
            needed = subject == "artifacts" or (subject == "hub cache" and due)
            yield Finding(subject, "problem" if needed else "note", f"{folder} is not writable: {advice}")
        elif free < need:
            yield Finding(subject, "problem", f"{text}: {advice}")
        elif subject != "artifacts":
            yield Finding(subject, "ok", text)
