"""One forward pass over a tiny input, to observe in which order a model's parts act on each other.

Its graph tells which parameters each layer's input and output depend on. Nothing of the model changes:
it runs in evaluation mode, random numbers are restored, and no gradient is computed.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lfreeze.errors import first_line
from lfreeze.made_up_inputs import model_inputs


@dataclass(frozen=True)
class Observation:
    """What a forward pass showed.

    Attributes:
        before: by parameter id, the first layer whose input depends on it, counted in order of execution.
        inside: the same for parameters that a layer does not own but reads itself.
        after: ids of the other parameters that the model's output depends on.
        calls: the layers' indices in the order in which they ran.
        arguments: what the model ran on; positional arguments are under "".
        autocast: whether it ran in bfloat16.
        error: why the model did not run, if it did not; the rest is empty then.
    """

    before: Mapping[int, int]
    inside: Mapping[int, int]
    after: Collection[int]
    calls: tuple[int, ...]
    arguments: Mapping[str, Any]
    autocast: bool = False
    error: str | None = None


def observe(
    model: nn.Module, layers: Sequence[nn.Module], example: Mapping[str, Any] | None = None
) -> Observation:
    """Run a model once and observe on which parameters its layers depend.

    A model on the meta device computes nothing.

    Args:
        example: the arguments of its forward method, in place of made-up ones.
    """
    error = None
    on_cuda = next(model.parameters()).device.type == "cuda"
    # Some attention kernels accept no float32. Autocast comes second: it copies every weight.
    types = (False, True) if on_cuda else (False,)
    inputs = list(model_inputs(model)) if example is None else [dict(example)]
    for arguments, autocast in itertools.product(inputs, types):
        recorder = _Recorder(layers)
        try:
            with undisturbed(model), _all_trainable(model), recorder.hooks():
                after = recorder.reached(_run(model, arguments, autocast))
        except Exception as failure:
            # Any input may be wrong for a model that was never seen before; the caller decides.
            error = error or first_line(failure, with_type=True)
            continue
        ran = len(set(recorder.calls))
        if ran == len(layers):
            calls = tuple(recorder.calls)
            return Observation(recorder.before, recorder.inside, after, calls, arguments, autocast)
        error = error or f"{ran} of its {len(layers)} layers ran"
    return Observation({}, {}, (), (), {}, error=error or "its arguments are not known")


def crossed_layers(model: nn.Module, layers: Sequence[nn.Module], observation: Observation) -> int | None:
    """Layers that a backward pass from the model's output would cross under the ``requires_grad`` flags.

    None if no layer's output is in a graph, as for layers with a backward pass of their own.
    """
    nodes: list[set[Any]] = [set() for _ in layers]

    def watch(index: int) -> Any:
        def note(module: nn.Module, args: Any, output: Any) -> None:
            nodes[index] |= {tensor.grad_fn for tensor in tensors_in(output)} - {None}

        return note

    handles = [layer.register_forward_hook(watch(index)) for index, layer in enumerate(layers)]
    try:
        with undisturbed(model):
            output = _run(model, observation.arguments, observation.autocast)
    finally:
        for handle in handles:
            handle.remove()
    if not any(nodes):
        return None
    # A loss is computed from the logits; other outputs may be by-products.
    logits = output.get("logits") if isinstance(output, Mapping) else None
    visited: set[Any] = set()
    for _ in _leaves(tensors_in(output if logits is None else logits), visited):
        pass
    return sum(not crossed.isdisjoint(visited) for crossed in nodes)


def _run(model: nn.Module, arguments: Mapping[str, Any], autocast: bool) -> Any:
    # Weights of several types, such as frozen ones stored in bfloat16, multiply under autocast only.
    types = {p.dtype for p in model.parameters() if p.is_floating_point()}
    device = "cuda" if next(model.parameters()).device.type == "cuda" else "cpu"
    with torch.autocast(device, torch.bfloat16, enabled=autocast or len(types) > 1):
        return model(*arguments.get("", ()), **{k: v for k, v in arguments.items() if k})


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in a module's arguments or output, however nested."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


class _Recorder:
    def __init__(self, layers: Sequence[nn.Module]):
        self._layers = layers
        self.before: dict[int, int] = {}
        self.inside: dict[int, int] = {}
        self.calls: list[int] = []
        self._visited: set[Any] = set()
        self._own = {id(p) for layer in layers for p in layer.parameters()}

    @contextlib.contextmanager
    def hooks(self) -> Iterator[None]:
        handles = []
        for index, layer in enumerate(self._layers):
            handles.append(layer.register_forward_pre_hook(self._enter(index), with_kwargs=True))
            handles.append(layer.register_forward_hook(self._leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def reached(self, value: Any) -> set[int]:
        """Ids of the parameters that a value depends on and that nothing before depended on."""
        return {id(p) for p in _leaves(tensors_in(value), self._visited)} - self._own

    def _enter(self, index: int) -> Any:
        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            self._note(self.before, (args, kwargs))
            self.calls.append(index)

        return enter

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._note(self.inside, output, offset=-1)

    def _note(self, where: dict[int, int], value: Any, offset: int = 0) -> None:
        where.update(dict.fromkeys(self.reached(value), len(self.calls) + offset))


def _leaves(tensors: Iterable[torch.Tensor], visited: set[Any]) -> Iterator[torch.Tensor]:
    """The parameters in the graph of these tensors, except behind visited nodes; adds those that it visits."""
    pending: list[Any] = []
    for tensor in tensors:
        if tensor.grad_fn is not None:
            pending.append(tensor.grad_fn)
        elif tensor.requires_grad and id(tensor) not in visited:
            visited.add(id(tensor))
            yield tensor
    while pending:
        node = pending.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        pending += [following for following, _ in node.next_functions]


@contextlib.contextmanager
def undisturbed(model: nn.Module, *, training: bool = False) -> Iterator[None]:
    """Evaluation or training mode with gradients; modes and random numbers are restored afterwards."""
    modes = {module: module.training for module in model.modules()}
    devices = {p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"}
    # torch's own encoder layers have a fast path in evaluation mode, which mixed layers cannot share.
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        model.train(training)
        torch.backends.mha.set_fastpath_enabled(False)
        with (
            torch.random.fork_rng(sorted(devices)),
            torch.enable_grad(),
            torch.compiler.set_stance("force_eager"),
        ):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for module, mode in modes.items():
            module.training = mode


@contextlib.contextmanager
def _all_trainable(model: nn.Module) -> Iterator[None]:
    """Every parameter in the graph."""
    flags = [(p, p.requires_grad) for p in model.parameters() if p.is_floating_point()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
