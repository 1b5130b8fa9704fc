"""The nodes of a cluster, checked before any trial is sent to them: version, models, GPUs."""

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

# Time for a node to answer, which may have to read and hash its models.
_SECONDS = 600.0
_FIRST_SECONDS = 60.0
# What must be equal on all nodes; another commit of the same version is another program.
_SAME = ("lfreeze_version", "git_commit", "git_dirty")


def examine_nodes(inputs: SpaceInputs, cpus: float, with_gpus: bool) -> list[Node]:
    """The nodes that have the CPUs for a trial.

    Args:
        with_gpus: whether trials may use a GPU.

    Raises:
        InputError: there is none; or one has another version of this package or of one that numbers depend on, lacks
            a model, has other files of it, or offers GPUs that torch cannot use there or that another node also offers.
    """
    hashes = {name: (c.weights_hash, c.tokenizer_hash) for name, c in inputs.checkpoints.items()}
    mine = {name: value for name, value in software().items() if name in _SAME}
    packages = software()["package_versions_json"]
    living = _nodes(cpus)
    models = [ray.put((dict(inputs.cards), hashes))]
    reports = _on_every_node(_examine(), living, _SECONDS, mine, packages, with_gpus, models)
    nodes, owners = [], dict[str, str]()
    for name, node in living.items():
        offered = node["Resources"]
        gpus = reports[name]["gpus"][: int(offered.get("GPU", 0))]
        if len(gpus) < offered.get("GPU", 0) and with_gpus:
            raise InputError(
                f"node {name}: Ray offers {offered['GPU']:g} GPUs there, but torch can use {len(gpus)} (an older "
                "driver than its CUDA needs, or a CPU build of torch?): --gpus-per-trial 0 uses no GPU"
            )
        for _, _, identifier in gpus:
            if owners.setdefault(identifier, name) != name:
                raise InputError(
                    f"nodes {owners[identifier]} and {name} both offer the GPU {identifier}: start one Ray node "
                    "on a machine, or separate them with CUDA_VISIBLE_DEVICES"
                )
        sizes = tuple((model, size) for model, size, _ in gpus)
        nodes.append(Node(name, str(node["NodeManagerAddress"]), offered["CPU"], sizes))
    return nodes


def fetch_on_nodes(cards: Mapping[str, ModelCard]) -> dict[str, dict[str, int]]:
    """Download the models into every node's cache; the bytes in it, by node and model.

    Raises:
        InputError: a node cannot read one of them.
    """
    reports = _on_every_node(_fetch(), _nodes(1), None, [ray.put(dict(cards))])
    return {name: report["bytes"] for name, report in reports.items()}


def _nodes(cpus: float) -> dict[str, Mapping[str, Any]]:
    """The living nodes with this many CPUs, by address, with the id added where several share one.

    In a new cluster, waits a while for the first node to join.

    Raises:
        InputError: there is none.
    """
    deadline, notified = time.monotonic() + _FIRST_SECONDS, False
    while not (nodes := [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) >= cpus]):
        most = max((n["Resources"].get("CPU", 0) for n in ray.nodes() if n["Alive"]), default=0)
        if most or time.monotonic() > deadline:
            raise InputError(
                f"no node of this cluster has the {cpus:g} CPUs that a trial needs (cpu_threads): the maximum is {most:g}"
            )
        if not notified:
            notified = True
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
    function: Callable[..., dict[str, Any]],
    nodes: Mapping[str, Mapping[str, Any]],
    seconds: float | None,
    *arguments: Any,
) -> dict[str, Any]:
    """The report of a function that runs on each node, by the node's name.

    Args:
        seconds: how long to wait for each; None for no limit.

    Raises:
        InputError: a node does not answer, or reports a problem.
    """
    tasks = {
        name: ray.remote(function)
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
            raise InputError(f"node {name} cannot be examined: {lines[-1]}") from None
    for name, report in reports.items():
        if report["problem"]:
            raise InputError(f"node {name}: {report['problem']}")
    return reports


def _examine() -> Callable[..., dict[str, Any]]:
    # Ray pickles a nested function by value, and the models are unpickled only once the versions agree: the
    # node may have another version of this package, or none.
    def examine(mine: dict[str, Any], packages: str, with_gpus: bool, models: list[Any]) -> dict[str, Any]:
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
        from reproduce.store.provenance import other_packages

        if other := other_packages(software()["package_versions_json"], packages):
            return report | {"problem": f"it has other versions of packages: {other}"}
        cards, hashes = ray.get(models[0])
        for name, card in cards.items():
            try:
                if not model_availability(card).cached:
                    fetch = "`reproduce fetch` with the same --address downloads it"
                    return report | {"problem": f"its cache has no model {name}: {fetch}"}
                checkpoint = find_checkpoint(card)
            except InputError as error:
                return report | {"problem": str(error)}
            if (checkpoint.weights_hash, checkpoint.tokenizer_hash) != hashes[name]:
                return report | {"problem": f"its files of the model {name} differ from the ones here"}
        if not with_gpus:
            return report
        # The variable with which Ray was started there: Ray hides the GPUs from a task that requests none.
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
            errors = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            return report | {"problem": f"its GPUs cannot be listed: {errors[-1]}"}
        return report | {"gpus": json.loads(done.stdout.splitlines()[-1])}

    return examine


def _fetch() -> Callable[..., dict[str, Any]]:
    def fetch(models: list[Any]) -> dict[str, Any]:
        import ray

        try:
            from lfreeze.errors import InputError
            from lfreeze.models.catalog import find_checkpoint
        except ImportError as error:
            return {"problem": f"this package is not installed there ({error})"}
        sizes = {}
        for name, card in ray.get(models[0]).items():
            try:
                sizes[name] = sum(path.stat().st_size for path in find_checkpoint(card).files)
            except InputError as error:
                return {"problem": str(error)}
        return {"problem": None, "bytes": sizes}

    return fetch
