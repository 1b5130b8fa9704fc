"""The stacks of transformer layers in a model, found by structure: by types and shapes, never by names."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.conv import _ConvNd

Layers = tuple[nn.Module, ...]


def layer_stacks(model: nn.Module) -> dict[str, Layers]:
    """The stacks of a model by their paths, in the order of registration.

    A stack is a list of modules with the matrices of a transformer layer. The layers of nested lists, such
    as the stages of a vision transformer, form one stack. A model without any such list has its other
    lists of modules with parameters in their place.
    """
    candidates: dict[str, Layers] = {}
    for path, module in _lists(model, ""):
        layers = _layers(module)
        if layers and not any(set(layers) & set(others) for others in candidates.values()):
            candidates[path] = layers
    if candidates:
        return candidates
    lists = {path: tuple(module.children()) for path, module in _lists(model, "")}
    return {path: layers for path, layers in lists.items() if all(map(_has_parameters, layers))}


def _lists(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """The outermost lists of modules, with their paths."""
    for name, child in module.named_children():
        child_path = f"{path}.{name}" if path else name
        if _is_list(child):
            yield child_path, child
        else:
            yield from _lists(child, child_path)


def _is_list(module: nn.Module) -> bool:
    """A ModuleList, or a Sequential of layers of one class."""
    if isinstance(module, nn.ModuleList):
        return len(module) > 0
    return (
        isinstance(module, nn.Sequential)
        and len(module) > 1
        and len({type(child) for child in module}) == 1
        and all(map(_is_layer, module))
    )


def _layers(module: nn.Module) -> Layers:
    """The layers in a list of layers, or in a list of lists or stages of layers; else none."""
    children = list(module.children())
    nested = [_nested_layers(child) for child in children]
    if all(nested):
        layers = tuple(layer for part in nested for layer in part)
        if len({type(layer) for layer in layers}) == 1:
            return layers
    return tuple(children) if all(map(_is_layer, children)) else ()


def _nested_layers(module: nn.Module) -> Layers:
    """The layers in a stage, which has hardly any matrices of its own."""
    lists = [module] if _is_list(module) else [inner for _, inner in _lists(module, "")]
    stacks = [layers for layers in map(_layers, lists) if layers]
    if len(stacks) != 1:
        return ()
    inside = {id(p) for layer in stacks[0] for p in layer.parameters()}
    return stacks[0] if _matrices(module, inside) < 2 else ()


def _is_layer(module: nn.Module) -> bool:
    """Whether a module has the matrices of a transformer layer: a norm and two, or four without a norm.

    Its output is as wide as its input, unlike a classification head's.
    """
    linears = [part for part in module.modules() if isinstance(part, nn.Linear)]
    if linears and linears[0].in_features not in {linear.out_features for linear in linears}:
        return False
    matrices = _matrices(module, set())
    return matrices >= 2 and (matrices >= 4 or any(map(_is_norm, module.modules())))


def _is_norm(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    return bool(own) and all(p.dim() == 1 for p in own)


def _matrices(module: nn.Module, without: set[int]) -> int:
    """Weight matrices of linear maps, in whichever class; quantised ones without a parameter included."""
    count = 0
    for part in module.modules():
        if isinstance(part, nn.Embedding | _ConvNd):
            continue
        own = [p for p in part.parameters(recurse=False) if id(p) not in without]
        count += sum(p.dim() >= 2 for p in own)
        count += any(name == "qweight" for name, _ in part.named_buffers(recurse=False))
    return count


def _has_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())
