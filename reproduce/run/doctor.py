"""``reproduce doctor``: what would keep a space from running on this machine, and how to fix it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from lfreeze.data.loading import load_task, task_availability
from lfreeze.data.tasks import get_task
from lfreeze.errors import InputError
from lfreeze.model_shape import ShapeError
from lfreeze.models.catalog import find_checkpoint, model_availability
from reproduce.plan.cost import GIB, Assumptions, plan_space
from reproduce.plan.inputs import check_inputs, find_inputs
from reproduce.plan.search_space import SearchSpace
from reproduce.process import FAILED, OK
from reproduce.run.gpu_share import local_gpu_bytes
from reproduce.run.preflight import SHM, SHM_BYTES, TRIAL_BYTES
from reproduce.store.provenance import driver_version

_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


@dataclass(frozen=True)
class Finding:
    """The result of one check; the text of a problem says how to fix it."""

    subject: str
    level: Literal["ok", "note", "problem"]
    text: str


def examine(space: SearchSpace, root: Path, data_dir: Path | None) -> int:
    """Check everything that a space needs and print the results; status 1 if there is a problem."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _device,
        lambda: _memory(space),
        _shared_memory,
        lambda: _folders(space, root),
        lambda: _models(space),
        lambda: _tasks(space, data_dir),
        lambda: _fit(space, data_dir),
    ]
    findings = [finding for check in checks for finding in check()]
    table = Table(box=None, header_style="bold")
    table.add_column("check", no_wrap=True)
    table.add_column("")
    table.add_column("result", overflow="fold")
    for finding in findings:
        table.add_row(finding.subject, f"[{_STYLES[finding.level]}]{finding.level}[/]", finding.text)
    Console(width=max(Console().width, 100)).print(table)
    problems = sum(finding.level == "problem" for finding in findings)
    print(
        f"{space.name}: {problems} problem{'s' * (problems != 1)} to solve."
        if problems
        else f"{space.name}: this machine can run it."
    )
    return FAILED if problems else OK


def _device() -> Iterator[Finding]:
    import torch

    driver = driver_version()
    built = torch.version.cuda
    yield Finding("torch", "ok", f"{torch.__version__}, built for {'CUDA ' + built if built else 'the CPU'}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            fast = (gpu.major, gpu.minor) >= (8, 0)
            text = f"{gpu.name}, {gpu.total_memory / GIB:.1f} GiB, driver {driver or 'unknown'}"
            text += "" if fast else ", no bf16 units: use --set precision=fp32"
            yield Finding(f"GPU {index}", "ok" if fast else "note", text)
    elif driver and not built:
        yield Finding(
            "GPU",
            "problem",
            f"the NVIDIA driver {driver} is installed, but torch is a CPU build: install torch's CUDA build",
        )
    elif driver:
        yield Finding(
            "GPU",
            "problem",
            f"torch for CUDA {built} cannot use the driver {driver}: install a newer driver, or a torch built "
            "for an older CUDA",
        )
    else:
        yield Finding("GPU", "note", "none: trials run on the CPU (a container needs --gpus all to see GPUs)")


def _memory(space: SearchSpace) -> Iterator[Finding]:
    """Compare the largest trial with the memory of the smallest GPU, or of this machine."""
    try:
        trials = plan_space(space, Assumptions(80 * GIB, 1.0))
    except ShapeError as error:
        yield Finding("memory", "note", f"not predicted: {error}")
        return
    except InputError as error:
        yield Finding("memory", "problem", str(error))
        return
    largest = max(trials, key=lambda t: t.static_bytes + t.training_bytes)
    need = largest.static_bytes + largest.training_bytes
    what = (
        f"the largest trial ({largest.factors.model}, {largest.factors.strategy}) needs {need / GIB:.2f} GiB"
    )
    if sizes := local_gpu_bytes():
        where, size = "the smallest GPU", min(sizes)
    else:
        where, size = "this machine", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    text = f"{what}, {where} has {size / GIB:.1f} GiB"
    if need * 1.15 > size:
        advice = "choose fewer models or strategies, --set precision=bf16, or a smaller batch_size"
        advice += "; `reproduce run --what-fits` skips trials that do not fit the GPU" if sizes else ""
        yield Finding("memory", "problem", f"{text}: {advice}")
    else:
        yield Finding("memory", "ok", text)


def _shared_memory() -> Iterator[Finding]:
    path = SHM
    if not path.is_dir():
        yield Finding("shared memory", "note", "/dev/shm does not exist: Ray will use a slower folder")
        return
    free = shutil.disk_usage(path).free
    text = f"{free / GIB:.2f} GiB free in /dev/shm"
    if free < SHM_BYTES:
        yield Finding("shared memory", "problem", f"{text}: start the container with --shm-size=1g")
    else:
        yield Finding("shared memory", "ok", text)


def _folders(space: SearchSpace, root: Path) -> Iterator[Finding]:
    from huggingface_hub import constants

    from lfreeze.data.encoding_cache import cache_folder

    download = sum(model_availability(card).n_bytes or 0 for card in space.cards.values())
    trials = len(space.factors())
    for subject, folder, need, advice in (
        ("artifacts", root, trials * TRIAL_BYTES, "name another folder with --artifacts"),
        ("hub cache", Path(constants.HF_HUB_CACHE), download, "set HF_HOME to another folder"),
        ("encoding cache", cache_folder(), 50_000_000, "set LFREEZE_CACHE to another folder"),
    ):
        exists = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.is_dir())
        free = shutil.disk_usage(exists).free
        text = f"{folder}: {free / 1e9:.1f} GB free, about {need / 1e9:.2f} GB needed"
        if folder.exists() and not folder.is_dir():
            yield Finding(subject, "problem", f"{folder} is not a folder: {advice}")
        elif not os.access(exists, os.W_OK):
            # Texts can be encoded without a cache, and what is not downloaded needs none.
            needed = subject == "artifacts" or (subject == "hub cache" and download)
            yield Finding(subject, "problem" if needed else "note", f"{folder} is not writable: {advice}")
        elif free < need:
            yield Finding(subject, "problem", f"{text}: {advice}")
        else:
            yield Finding(subject, "ok", text)


def _models(space: SearchSpace) -> Iterator[Finding]:
    for name, card in space.cards.items():
        subject = f"model {name}"
        if card.random:
            yield Finding(subject, "ok", "random weights: nothing to download")
            continue
        outlook = model_availability(card)
        if outlook.problem:
            yield Finding(subject, "problem", outlook.problem)
        elif not outlook.cached:
            size = f"{outlook.n_bytes / 1e9:.2f} GB" if outlook.n_bytes is not None else "a download"
            yield Finding(
                subject, "ok", f"{card.model_id} is on the hub ({size}): `reproduce fetch` downloads it"
            )
        else:
            try:
                checkpoint = find_checkpoint(card)
            except InputError as error:
                yield Finding(subject, "problem", str(error))
            else:
                size = f"{sum(path.stat().st_size for path in checkpoint.files) / 1e9:.2f} GB"
                yield Finding(
                    subject,
                    "ok",
                    f"{card.model_id} is in the cache: {size}, weights {checkpoint.weights_hash:.12}",
                )


def _tasks(space: SearchSpace, data_dir: Path | None) -> Iterator[Finding]:
    for name in space.tasks:
        subject, task = f"task {name}", get_task(name)
        outlook = task_availability(task)
        if data_dir is None and outlook.problem:
            yield Finding(subject, "problem", outlook.problem)
        elif data_dir is None and not outlook.cached:
            yield Finding(subject, "ok", f"{task.dataset_id} is on the hub: `reproduce fetch` downloads it")
        else:
            try:
                data = load_task(
                    name,
                    space.recipe.max_train_examples,
                    space.recipe.drawing_seed(space.seeds[0]),
                    data_dir,
                    space.recipe.max_validation_examples,
                )
            except InputError as error:
                yield Finding(subject, "problem", str(error))
            else:
                text = (
                    f"{data.n_available:,} training and {data.n_validation_available:,} validation examples"
                )
                yield Finding(subject, "ok", text)


def _fit(space: SearchSpace, data_dir: Path | None) -> Iterator[Finding]:
    """Check that the models fit the texts and the strategies, once all of them are on this machine."""
    models = all(model_availability(card).cached for card in space.cards.values())
    tasks = data_dir is not None or all(task_availability(get_task(name)).cached for name in space.tasks)
    if not (models and tasks):
        return
    try:
        inputs = find_inputs(space, data_dir)
    except InputError:
        return  # The checks of single models and tasks have reported it.
    try:
        check_inputs(space, inputs)
    except InputError as error:
        yield Finding("trials", "problem", str(error))
    else:
        yield Finding("trials", "ok", "the models encode their texts, and the strategies fit the models")
