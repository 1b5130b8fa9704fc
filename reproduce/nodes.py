"""The nodes of a cluster, looked at before any trial is sent to them: version, models, GPUs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lfreeze.errors import InputError
from lfreeze.models import ModelCard
from reproduce.inputs import SpaceInputs
from reproduce.provenance import software

_SECONDS = 600.0
# What must be the same everywhere; another commit of the same version is another program too.
_SAME = ("lfreeze_version", "git_commit", "git_dirty")


@dataclass(frozen=True)
class Node:
    """One node that can run trials; ``gpu_bytes`` is the memory of each of its GPUs."""

    address: str
    gpu_bytes: tuple[int, ...]


def examine_nodes(inputs: SpaceInputs, cpus: float) -> list[Node]:
    """The nodes with room for a trial.

    Raises:
        InputError: one of them has another version of this package, or lacks a model or has another.
    """
    wanted = {name: (c.weights_hash, c.tokenizer_hash) for name, c in inputs.checkpoints.items()}
    mine = {name: software()[name] for name in _SAME}
    found = _on_every_node(_look(), cpus, mine, [ray.put((dict(inputs.cards), wanted))])
    return [Node(address, tuple(report["gpu_bytes"])) for address, report in found.items()]


def fetch_on_nodes(cards: Mapping[str, ModelCard]) -> dict[str, dict[str, int]]:
    """Fill every node's cache with the models; by node and model, the bytes that lie there.

    Raises:
        InputError: a node cannot read one of them.
    """
    found = _on_every_node(_fetch(), 0, [ray.put(dict(cards))])
    return {address: report["bytes"] for address, report in found.items()}


def _on_every_node(look: Callable[..., dict[str, Any]], cpus: float, *arguments: Any) -> dict[str, Any]:
    """What a function says on each living node with this many CPUs, by the node's address.

    Raises:
        InputError: one of them does not answer, or says that it has a problem.
    """
    nodes = [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) >= max(cpus, 1)]
    tasks = {
        _name(node, nodes): ray.remote(look)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote(*arguments)
        for node in nodes
    }
    reports = {}
    for address, task in tasks.items():
        try:
            reports[address] = ray.get(task, timeout=_SECONDS)
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(f"node {address} does not do what it is asked: {lines[-1]}") from None
    for address, report in reports.items():
        if report["problem"]:
            raise InputError(f"node {address}: {report['problem']}")
    return reports


def _name(node: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> str:
    """Its IP address; with its id, where several nodes share one."""
    address = str(node["NodeManagerAddress"])
    shared = sum(other["NodeManagerAddress"] == address for other in nodes) > 1
    return f"{address} ({node['NodeID'][:8]})" if shared else address


def _look() -> Callable[..., dict[str, Any]]:
    # A nested function travels as a whole, and what it is asked is read only once the versions agree: the
    # node may have another version of this package, or none.
    def look(mine: dict[str, Any], asked: list[Any]) -> dict[str, Any]:
        import subprocess

        import ray

        report: dict[str, Any] = {"problem": None, "gpu_bytes": []}
        try:
            from reproduce.provenance import software
        except ImportError as error:
            return report | {"problem": f"this package is not installed there ({error})"}
        theirs = software()
        for name, value in mine.items():
            if None not in (value, theirs.get(name)) and theirs[name] != value:
                return report | {
                    "problem": f"it has another version of this package: {name} {theirs[name]} there, {value} here"
                }
        from lfreeze.errors import InputError
        from lfreeze.models import find_checkpoint, model_outlook

        cards, wanted = ray.get(asked[0])
        for name, card in cards.items():
            try:
                if not model_outlook(card).cached:
                    fetch = "`reproduce fetch` with the same --address fills it"
                    return report | {"problem": f"its cache has no model {name}: {fetch}"}
                found = find_checkpoint(card)
            except InputError as error:
                return report | {"problem": str(error)}
            if (found.weights_hash, found.tokenizer_hash) != wanted[name]:
                return report | {"problem": f"its files of the model {name} are not the ones here"}
        command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        except (OSError, subprocess.SubprocessError):
            return report
        return report | {"gpu_bytes": [int(float(line)) * 2**20 for line in done.stdout.split()]}

    return look


def _fetch() -> Callable[..., dict[str, Any]]:
    def fetch(asked: list[Any]) -> dict[str, Any]:
        import ray

        try:
            from lfreeze.errors import InputError
            from lfreeze.models import find_checkpoint
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
