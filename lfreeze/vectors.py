"""The parameters of a module that are biases, or that belong to norms."""

from __future__ import annotations

from torch import nn

# What a kind of strategy may ask for.
BIASES, NORMS = "biases", "norms"


def vectors_in(module: nn.Module, which: str) -> list[nn.Parameter]:
    """The distinct parameters of a module and its children that are ``"biases"`` or of ``"norms"``.

    A bias is a parameter that its module calls ``bias``, or by a name that ends with ``_bias``. A norm is a
    module without children whose class is called a norm, as in torch and transformers, and whose parameters
    are vectors.
    """
    found = (
        parameter
        for part in module.modules()
        for name, parameter in part.named_parameters(recurse=False)
        if (_is_norm(part) if which == NORMS else name == "bias" or name.endswith("_bias"))
    )
    return list(dict.fromkeys(found))


def _is_norm(module: nn.Module) -> bool:
    parameters = list(module.parameters(recurse=False))
    return (
        "norm" in type(module).__name__.lower()
        and not list(module.children())
        and all(parameter.dim() == 1 for parameter in parameters)
    )
