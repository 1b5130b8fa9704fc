"""The roles of a model's parts: embeddings, transformer layers in order, final norm, head.

Roles are derived from what the layers depend on in one forward pass (``lfreeze.dry_run``), and from
structure where a model does not run; never from names: a substring such as ``layers.1`` would match
``layers.10`` as well.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn
from torch.nn.modules.conv import _ConvNd

from lfreeze.dry_run import crossed_layers, observe
from lfreeze.errors import StrategyError
from lfreeze.stacks import Layers, layer_stacks

Parameters = tuple[nn.Parameter, ...]


@dataclass(frozen=True)
class Parts:
    """A model's parameters by role; every parameter has exactly one role.

    Attributes:
        layers: the transformer layers in the order in which they run.
        between: by layer, the parameters of what runs after it and before the next one.
        embeddings: parameters of everything that the first layer's input depends on, and of what the
            layers read from elsewhere.
        norm: parameters of the norms after the layers.
        head: all other parameters, such as a classifier or a pooler.
        others: parameters of the parts that have other stacks of layers, where one stack was chosen.
        unobserved: why the model did not run, so that the roles come from structure alone.
        ambiguous: whether structure leaves open if a part runs before or behind the layers.
        others_observed: whether the forward pass reached the parts with other stacks.
    """

    layers: Layers
    between: tuple[Parameters, ...]
    embeddings: Parameters
    norm: Parameters
    head: Parameters
    others: Parameters
    unobserved: str | None
    ambiguous: bool
    others_observed: bool

    def layer_parameters(self, index: int) -> Parameters:
        """The parameters that are frozen with a layer."""
        return (*self.layers[index].parameters(), *self.between[index])

    def trains(self, index: int) -> bool:
        """Whether any parameter of a layer trains."""
        return any(p.requires_grad for p in self.layer_parameters(index))


def model_parts(model: nn.Module, stack: str | None = None) -> Parts:
    """Determine the roles of a transformer's parts.

    Args:
        stack: the path of the stack of layers in a model that has several.

    Raises:
        StrategyError: the model has no stack of layers, or several of which none is chosen; its layers
            share parameters or run more than once.
    """
    layers, rivals = _choose_stack(model, stack)
    known = _known.get(model)
    if known is None or not known.is_of(model, layers):
        known = _known[model] = _Known(model, layers)
    ordered = _in_order(model, layers, known.observation.calls)
    return _assign(model, ordered, {layer for rival in rivals for layer in rival}, known)


def _choose_stack(model: nn.Module, stack: str | None) -> tuple[Layers, list[Layers]]:
    """The stack of layers, and the other ones."""
    name, stacks = type(model).__name__, layer_stacks(model)
    if not stacks:
        raise StrategyError(
            f"{name} has no recognisable transformer layers (no torch.nn.ModuleList of modules)"
        )
    listed = ", ".join(f"{path} ({len(layers)})" for path, layers in stacks.items())
    if stack is not None and stack not in stacks:
        raise StrategyError(f"stack = {stack!r} is not a stack of layers of {name}, which has {listed}")
    if stack is None and len(stacks) > 1:
        raise StrategyError(
            f"{name} has more than one stack of layers, {listed}: choose one with stack=..., "
            "and whether the parts with the other stacks train with others='freeze' or 'train'"
        )
    layers = stacks.pop(stack or next(iter(stacks)))
    parameters = [id(p) for layer in layers for p in set(layer.parameters())]
    if len(parameters) != len(set(parameters)):
        raise StrategyError(f"the layers of {name} share parameters, so that none can be frozen alone")
    return layers, list(stacks.values())


def _in_order(model: nn.Module, layers: Layers, calls: Sequence[int]) -> Layers:
    """The layers in the order in which they ran, if they did."""
    count = len(layers)
    if len(set(calls)) < len(calls):
        raise StrategyError(
            f"{type(model).__name__} runs its {count} {'layer' if count == 1 else 'layers'} {len(calls)} times in "
            "one forward pass; layers can be frozen if each runs once"
        )
    return tuple(layers[i] for i in calls) or layers


def backward_depth(model: nn.Module, stack: str | None = None) -> int:
    """Layers that the backward pass crosses under the ``requires_grad`` flags, counted from the output.

    Observed in a forward pass; where the model does not run, derived from the roles of its parts.

    Raises:
        StrategyError: as ``model_parts``.
    """
    parts = model_parts(model, stack)
    count = len(parts.layers)
    first = next((index for index in range(count) if parts.trains(index)), count)
    if parts.unobserved is None:
        known = _known[model]
        crossed = crossed_layers(known.scope, parts.layers, known.observation)
        return count - first if crossed is None else crossed
    in_front = any(p.requires_grad for p in (*parts.embeddings, *parts.others))
    return count if in_front else count - first


def observe_example(model: nn.Module, stack: str | None, example: Mapping[str, Any]) -> None:
    """Observe a model's forward pass on a user's batch, for all later calls of ``model_parts``.

    Args:
        example: the keyword arguments of its forward method.

    Raises:
        StrategyError: the model does not run on it.
    """
    layers, _ = _choose_stack(model, stack)
    known = _known[model] = _Known(model, layers, example)
    if known.observation.error is not None:
        raise StrategyError(f"{type(model).__name__} does not run on the example ({known.observation.error})")


class _Known:
    """What was observed of a model, as long as it has the same layers and parameters outside them."""

    def __init__(self, model: nn.Module, layers: Layers, example: Mapping[str, Any] | None = None):
        self.scope, self.observation = model, observe(model, layers, example)
        inner = _inner_model(model, layers)
        if self.observation.error is not None and example is None and inner is not None:
            observation = observe(inner, layers)
            if observation.error is None:
                self.scope, self.observation = inner, observation
        self._layers = [weakref.ref(layer) for layer in layers]
        self._outside = {id(p): weakref.ref(p) for p in _outside(model, layers)}

    def is_of(self, model: nn.Module, layers: Layers) -> bool:
        return [ref() for ref in self._layers] == list(layers) and all(
            id(p) in self._outside and self._outside[id(p)]() is p for p in _outside(model, layers)
        )


_known: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()


def _inner_model(model: nn.Module, layers: Layers) -> nn.Module | None:
    """The model of transformers inside a wrapper with another forward method."""
    inside = [m for m in model.modules() if m is not model and hasattr(m, "main_input_name")]
    return next((m for m in inside if set(layers) <= set(m.modules())), None)


def _outside(model: nn.Module, layers: Layers) -> list[nn.Parameter]:
    inside = {id(p) for layer in layers for p in layer.parameters()}
    return [p for p in model.parameters() if id(p) not in inside]


def _assign(model: nn.Module, layers: Layers, rivals: set[nn.Module], known: _Known) -> Parts:
    observation = known.observation
    before, inside = observation.before, observation.inside
    between: list[list[nn.Parameter]] = [[] for _ in layers]
    roles: dict[str, list[nn.Parameter]] = {"embeddings": [], "norm": [], "head": [], "others": []}
    structure = _Structure(model, layers)
    seen = {id(p) for layer in layers for p in layer.parameters()}
    in_scope = {id(p) for p in known.scope.parameters()}
    wrapping: list[nn.Parameter] = []
    in_rivals = {id(p) for p in _rival_parameters(model, layers, rivals)}
    # What feeds the layers belongs to the embeddings, even if a part with another stack shares it.
    for branch in sorted(_branches(model, set(layers)), key=lambda branch: _has_any(branch, rivals)):
        parameters = [p for p in branch.parameters() if id(p) not in seen]
        seen |= {id(p) for p in parameters}
        if _has_any(branch, rivals):
            roles["others"] += parameters
            continue
        wrapping += [p for p in parameters if id(p) not in in_scope]
        parameters = [p for p in parameters if id(p) in in_scope]
        rest: list[nn.Parameter] = []
        for parameter in parameters:
            if id(parameter) in inside or before.get(id(parameter)) == 0:
                roles["embeddings"].append(parameter)
            elif id(parameter) in before:
                between[before[id(parameter)] - 1].append(parameter)
            elif id(parameter) in in_rivals:
                roles["others"].append(parameter)
            else:
                rest.append(parameter)
        if observation.error is not None:
            feeds = structure.feeds_layers(branch)
        elif any(id(p) in observation.after for p in rest):
            feeds = False
        else:
            feeds = len(rest) < len(parameters) or structure.precedes_layers(rest)
        roles["embeddings" if feeds else structure.role_behind_layers(rest)] += rest
    roles["head"] += wrapping
    return Parts(
        layers=layers,
        between=tuple(map(tuple, between)),
        unobserved=observation.error,
        others_observed=any(
            id(p) in seen_in for p in roles["others"] for seen_in in (before, inside, observation.after)
        ),
        ambiguous=bool(wrapping)
        or (
            observation.error is not None
            and (not roles["embeddings"] or structure.any_in_base(roles["norm"] + roles["head"]))
        ),
        **{role: tuple(parameters) for role, parameters in roles.items()},
    )


def _rival_parameters(model: nn.Module, layers: Layers, rivals: set[nn.Module]) -> Iterator[nn.Parameter]:
    for branch in _branches(model, set(layers)):
        if _has_any(branch, rivals):
            yield from branch.parameters()


def _has_any(branch: nn.Module, layers: set[nn.Module]) -> bool:
    return any(module in layers for module in branch.modules())


def _branches(module: nn.Module, layers: set[nn.Module]) -> Iterator[nn.Module]:
    """The largest modules that have parameters and contain no layer."""
    if any(True for _ in module.parameters(recurse=False)):
        holder = nn.Module()
        for name, parameter in module.named_parameters(recurse=False):
            holder.register_parameter(name, parameter)
        yield holder
    for child in module.children():
        if child in layers:
            continue
        if _has_any(child, layers):
            yield from _branches(child, layers)
        elif any(True for _ in child.parameters()):
            yield child


class _Structure:
    """What a model's structure tells of parts that its forward pass does not show."""

    def __init__(self, model: nn.Module, layers: Layers):
        self._order = {id(p): place for place, p in enumerate(model.parameters())}
        self._base = {id(p) for p in getattr(model, "base_model", model).parameters()}
        self._first = min(self._order[id(p)] for layer in layers for p in layer.parameters())
        # The first vector of a layer is a norm's weight.
        self._hidden = next((p.numel() for layer in layers for p in layer.parameters() if p.dim() == 1), 0)
        self._widths = {m.embedding_dim for m in model.modules() if isinstance(m, nn.Embedding)}

    def precedes_layers(self, parameters: list[nn.Parameter]) -> bool:
        """Whether unused parameters of the base model are registered in front of its layers."""
        return all(id(p) in self._base and self._order[id(p)] < self._first for p in parameters)

    def role_behind_layers(self, parameters: list[nn.Parameter]) -> str:
        vectors = all(id(p) in self._base and p.dim() == 1 for p in parameters)
        return "norm" if vectors else "head"

    def any_in_base(self, parameters: list[nn.Parameter]) -> bool:
        return any(id(p) in self._base for p in parameters)

    def feeds_layers(self, branch: nn.Module) -> bool:
        """Whether a part embeds, or maps embeddings of another width to the hidden size as in OPT-350m."""
        modules = list(branch.modules())
        if any(isinstance(m, nn.Embedding | _ConvNd) for m in modules):
            return True
        linears = [m for m in modules if isinstance(m, nn.Linear)]
        return (
            len(linears) == 1
            and all(id(p) in self._base for p in branch.parameters())
            and linears[0].in_features in self._widths - {self._hidden}
            and linears[0].out_features == self._hidden
        )
