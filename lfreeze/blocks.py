"""The roles of a model's parts: embeddings, transformer layers in order, final norm, head.

Roles are derived from structure (module types, shapes, containment), never from names: a substring
such as ``layers.1`` would match ``layers.10`` as well.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from lfreeze.errors import StrategyError

# A second stack with at least this share of the first one's parameters makes "the layers" ambiguous.
_RIVAL_SHARE = 0.2


@dataclass(frozen=True)
class Parts:
    """A model's parameters by role; every parameter has exactly one role.

    Attributes:
        layers: the transformer layers in forward order.
        embeddings: parameters of everything before the first layer.
        norm: parameters of the norms outside the layers and the embeddings.
        head: all other parameters, such as a classifier or a pooler.
    """

    layers: tuple[nn.Module, ...]
    embeddings: tuple[nn.Parameter, ...]
    norm: tuple[nn.Parameter, ...]
    head: tuple[nn.Parameter, ...]


def model_parts(model: nn.Module) -> Parts:
    """Determine the roles of a transformer's parts.

    Raises:
        StrategyError: the model has no stack of layers, more than one, or no embeddings.
    """
    stack = _layer_stack(model)
    base = getattr(model, "base_model", model)
    in_layers = {id(p) for p in stack.parameters()}
    in_base = {id(p) for p in base.parameters()}
    embeddings: list[nn.Parameter] = []
    norm: list[nn.Parameter] = []
    head: list[nn.Parameter] = []
    widths = {m.embedding_dim for m in model.modules() if isinstance(m, nn.Embedding)}
    hidden = _hidden_size(stack)
    seen = set(in_layers)
    for branch in _branches(model, stack):
        parameters = [p for p in branch.parameters() if id(p) not in seen]
        seen |= {id(p) for p in parameters}
        inside = all(id(p) in in_base for p in parameters)
        if _embeds(branch) or (inside and _widens(branch, widths - {hidden}, hidden)):
            embeddings += parameters
        elif inside and all(p.dim() == 1 for p in parameters):
            norm += parameters
        else:
            head += parameters
    if not embeddings:
        raise StrategyError(f"{type(model).__name__} has no embeddings in front of its layers")
    return Parts(tuple(stack), tuple(embeddings), tuple(norm), tuple(head))


def _layer_stack(model: nn.Module) -> nn.ModuleList:
    """The ModuleList that is the transformer's stack of layers."""
    stacks = sorted(_outermost_lists(model), key=_size, reverse=True)
    if not stacks:
        raise StrategyError(
            f"{type(model).__name__} has no recognisable transformer layers (no torch.nn.ModuleList of modules)"
        )
    if len(stacks) > 1 and _size(stacks[1]) >= _RIVAL_SHARE * _size(stacks[0]):
        raise StrategyError(
            f"{type(model).__name__} has more than one stack of layers ({len(stacks[0])} and {len(stacks[1])}); "
            "encoder-decoder and multi-tower models are not supported"
        )
    return stacks[0]


def _outermost_lists(module: nn.Module) -> Iterator[nn.ModuleList]:
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            if len(child) > 0 and all(_size(layer) > 0 for layer in child):
                yield child
        else:
            yield from _outermost_lists(child)


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _branches(module: nn.Module, stack: nn.ModuleList) -> Iterator[nn.Module]:
    """The largest modules that have parameters and do not contain the layers."""
    if any(True for _ in module.parameters(recurse=False)):
        holder = nn.Module()
        for name, parameter in module.named_parameters(recurse=False):
            holder.register_parameter(name, parameter)
        yield holder
    for child in module.children():
        if child is stack:
            continue
        if any(m is stack for m in child.modules()):
            yield from _branches(child, stack)
        elif _size(child):
            yield child


def _embeds(branch: nn.Module) -> bool:
    return any(isinstance(m, nn.Embedding) for m in branch.modules())


def _hidden_size(stack: nn.ModuleList) -> int:
    """The width of the residual stream: the size of the layers' first vector, a norm's weight."""
    return next((p.numel() for p in stack.parameters() if p.dim() == 1), 0)


def _widens(branch: nn.Module, widths: set[int], hidden: int) -> bool:
    """Whether a branch maps embeddings of another width to the hidden size, as OPT-350m does."""
    linears = [m for m in branch.modules() if isinstance(m, nn.Linear)]
    return len(linears) == 1 and linears[0].in_features in widths and linears[0].out_features == hidden
