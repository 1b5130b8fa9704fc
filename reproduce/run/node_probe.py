"""The nodes of a cluster, looked at before any trial is sent to them: version, models, GPUs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lfreeze.errors import InputError
from lfreeze.models.catalog import ModelCard
from reproduce.plan.inputs import SpaceInputs
from reproduce.run.placement import Node
from reproduce.store.provenance import software

# For an answer of a node, which may have to read and hash its models.
_SECONDS = 600.0
_FIRST_SECONDS = 60.0
# What must be the same everywhere; another commit of the same version is another program too.
_SAME = ("lfreeze_version", "git_commit", "git_dirty")


def examine_nodes(inputs: SpaceInputs, cpus: float, with_gpus: bool) -> list[Node]:
    """The nodes with room for a trial.

    Args:
        with_gpus: whether trials may be given a part of a GPU.

    Raises:
        InputError: none has room; or one has another version of this package, lacks a model or has
            another, or gives out GPUs that torch cannot use there, or that another node gives out too.
    """
    wanted = {name: (c.weights_hash, c.tokenizer_hash) for name, c in inputs.checkpoints.items()}
    mine = {name: value for name, value in software().items() if name in _SAME}
    asked = _nodes(cpus)
    found = _on_every_node(_look(), asked, _SECONDS, mine, with_gpus, [ray.put((dict(inputs.cards), wanted))])
    nodes, owners = [], dict[str, str]()
    for name, node in asked.items():
        given = node["Resources"]
        gpus = found[name]["gpus"][: int(given.get("GPU", 0))]
        if len(gpus) < given.get("GPU", 0) and with_gpus:
            raise InputError(
                f"node {name}: Ray gives out {given['GPU']:g} GPUs there, but torch can use {len(gpus)} (an older "
                "driver than its CUDA needs, or a CPU build of torch?): --gpus-per-trial 0 uses no GPU"
            )
        for _, _, identifier in gpus:
            if owners.setdefault(identifier, name) != name:
                raise InputError(
                    f"nodes {owners[identifier]} and {name} both give out the GPU {identifier}: start one Ray node "
                    "on a machine, or give each its own with CUDA_VISIBLE_DEVICES"
                )
        models = tuple((model, size) for model, size, _ in gpus)
        nodes.append(Node(name, str(node["NodeManagerAddress"]), given["CPU"], models))
    return nodes


def fetch_on_nodes(cards: Mapping[str, ModelCard]) -> dict[str, dict[str, int]]:
    """Fill every node's cache with the models; by node and model, the bytes that lie there.

    Raises:
        InputError: a node cannot read one of them.
    """
    found = _on_every_node(_fetch(), _nodes(1), None, [ray.put(dict(cards))])
    return {address: report["bytes"] for address, report in found.items()}


def _nodes(cpus: float) -> dict[str, Mapping[str, Any]]:
    """The living nodes with this many CPUs, each by its address, and by its id too where several share one.

    A cluster that has just been started is given a while until the first has joined.

    Raises:
        InputError: none has.
    """
    deadline, told = time.monotonic() + _FIRST_SECONDS, False
    while not (nodes := [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) >= cpus]):
        most = max((n["Resources"].get("CPU", 0) for n in ray.nodes() if n["Alive"]), default=0)
        if most or time.monotonic() > deadline:
            raise InputError(
                f"no node of this cluster has the {cpus:g} CPUs that a trial asks for (cpu_threads): the most is {most:g}"
            )
        if not told:
            told = True
            print(
                f"No node that runs trials has joined the cluster yet: waiting {_FIRST_SECONDS:g} s for one."
            )
        time.sleep(1)
    shared = Counter(node["NodeManagerAddress"] for node in nodes)
    return {
        f"{a} ({node['NodeID'][:8]})" if shared[a := node["NodeManagerAddress"]] > 1 else a: node
        for node in nodes
    }


def _on_every_node(
    look: Callable[..., dict[str, Any]],
    nodes: Mapping[str, Mapping[str, Any]],
    seconds: float | None,
    *arguments: Any,
) -> dict[str, Any]:
    """What a function says on each node, by the node's name; None waits for as long as it takes.

    Raises:
        InputError: one of them does not answer, or says that it has a problem.
    """
    tasks = {
        name: ray.remote(look)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote(*arguments)
        for name, node in nodes.items()
    }
    reports = {}
    for name, task in tasks.items():
        try:
            reports[name] = ray.get(task, timeout=seconds)
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(f"node {name} does not do what it is asked: {lines[-1]}") from None
    for name, report in reports.items():
        if report["problem"]:
            raise InputError(f"node {name}: {report['problem']}")
    return reports


def _look() -> Callable[..., dict[str, Any]]:
    # A nested function travels as a whole, and what it is asked is read only once the versions agree: the
    # node may have another version of this package, or none.
    def look(mine: dict[str, Any], with_gpus: bool, asked: list[Any]) -> dict[str, Any]:
        import contextlib
        import json
        import os
        import subprocess
        import sys
        from pathlib import Path

        import ray

        report: dict[str, Any] = {"problem": None, "gpus": []}
        try:
            from reproduce.store.provenance import software
        except ImportError as error:
            return report | {"problem": f"this package is not installed there ({error})"}
        theirs = dict(software())
        for name, value in mine.items():
            if None not in (value, theirs.get(name)) and theirs[name] != value:
                return report | {
                    "problem": f"it has another version of this package: {name} {theirs[name]} there, {value} here"
                }
        from lfreeze.errors import InputError
        from lfreeze.models.catalog import find_checkpoint, model_availability

        cards, wanted = ray.get(asked[0])
        for name, card in cards.items():
            try:
                if not model_availability(card).cached:
                    fetch = "`reproduce fetch` with the same --address fills it"
                    return report | {"problem": f"its cache has no model {name}: {fetch}"}
                found = find_checkpoint(card)
            except InputError as error:
                return report | {"problem": str(error)}
            if (found.weights_hash, found.tokenizer_hash) != wanted[name]:
                return report | {"problem": f"its files of the model {name} are not the ones here"}
        if not with_gpus:
            return report
        # As Ray was started there: it hides the GPUs from a task that asks for none.
        environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        with contextlib.suppress(OSError):
            for variable in Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0"):
                if variable.startswith(b"CUDA_VISIBLE_DEVICES="):
                    environment["CUDA_VISIBLE_DEVICES"] = variable.partition(b"=")[2].decode()
        done = subprocess.run(
            [sys.executable, "-m", "reproduce.run.gpus"],
            capture_output=True,
            text=True,
            timeout=120,
            env=environment,
        )
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            return report | {"problem": f"its GPUs cannot be asked for: {said[-1]}"}
        return report | {"gpus": json.loads(done.stdout.splitlines()[-1])}

    return look


def _fetch() -> Callable[..., dict[str, Any]]:
    def fetch(asked: list[Any]) -> dict[str, Any]:
        import ray

        try:
            from lfreeze.errors import InputError
            from lfreeze.models.catalog import find_checkpoint
        except ImportError as error:
            return {"problem": f"this package is not installed there ({error})"}
        sizes = {}
        for name, card in ray.get(asked[0]).items():
            try:
                sizes[name] = sum(path.stat().st_size for path in find_checkpoint(card).files)
            except InputError as error:
                return {"problem": str(error)}
        return {"problem": None, "bytes": sizes}

    return fetch
