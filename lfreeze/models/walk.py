"""The sizes of any classifier that transformers builds, without a formula: its own code runs on fake tensors.

The model is built on the meta device and given torch's fake tensors, which compute shapes alone;
``lfreeze.blocks`` tells the roles of its parts. One forward pass with
``torch.autograd.graph.saved_tensors_hooks`` counts what autograd keeps, layer by layer. No weight is read
and no number computed.
"""

from __future__ import annotations

import functools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from transformers.pytorch_utils import Conv1D

from lfreeze.blocks import Parts, model_parts
from lfreeze.errors import InputError, first_line
from lfreeze.model_shape import LayerSizes, Saved, ShapeError
from lfreeze.models.catalog import Checkpoint
from lfreeze.models.loading import empty_classifier

# What autocast computes in float32 on CUDA alone, of the operations that models contain.
_FLOAT32_ON_CUDA = frozenset(
    (
        "pow", "__pow__", "__rpow__", "exp", "expm1", "log", "log1p", "rsqrt", "reciprocal", "softplus", "softmax",
        "log_softmax", "layer_norm", "group_norm", "norm", "sum", "cumsum", "prod", "logsumexp",
    )
)  # fmt: skip
# Storages in more places than this, such as masks and rotary angles, belong to no single layer.
_SHARED = 2


@dataclass(frozen=True)
class WalkedShape:
    """The sizes of a sequence classifier, counted in the model that its configuration builds.

    Attributes:
        config: its configuration as JSON.
        device: type of the device that it trains on; autograd keeps other tensors on the CPU than on CUDA.
        layers: parameters and weights of each layer, in the order of execution.
        linears: of one layer, each linear map's (name, inputs, outputs, bias).
        products_width: heads times their size, the width of attention's two products.
    """

    config: str
    device: str
    n_layers: int
    layers: tuple[LayerSizes, ...]
    embedding_parameters: int
    norm_parameters: int
    linears: tuple[tuple[str, int, int, bool], ...]
    products_width: int
    head_of_two: int
    head_of_three: int
    parallel: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any], device: str = "cpu") -> WalkedShape:
        """Build the classifier of a hub-format ``config.json`` without weights and count its parts.

        Raises:
            ShapeError: transformers has no classifier of the architecture, or it does not run.
        """
        text = json.dumps(dict(config), sort_keys=True)
        _, model, parts = _build(text, 2)
        _, _, wider = _build(text, 3)
        text_config = model.config.get_text_config()
        heads = getattr(text_config, "num_attention_heads", 1)
        size = getattr(text_config, "head_dim", None) or text_config.hidden_size // heads
        return cls(
            config=text,
            device=device,
            n_layers=len(parts.layers),
            layers=tuple(_layer_sizes(parts, index, text_config) for index in range(len(parts.layers))),
            embedding_parameters=_count(parts.embeddings),
            norm_parameters=_count(parts.norm),
            linears=_linears(parts.layers[-1]),
            products_width=heads * size,
            head_of_two=_count(parts.head),
            head_of_three=_count(wider.head),
        )

    def head_parameters(self, n_labels: int) -> int:
        """Parameters of the classification head, poolers included."""
        return self.head_of_two + (n_labels - 2) * (self.head_of_three - self.head_of_two)

    def parameters(self, n_labels: int) -> int:
        """All parameters of the classifier."""
        layers = sum(layer.parameters for layer in self.layers)
        return self.embedding_parameters + layers + self.norm_parameters + self.head_parameters(n_labels)

    def saved(self, batch_size: int, length: int, precision: str, frozen_dtype: str) -> Saved:
        """What autograd keeps of a batch in each layer, if the layer trains and if it is frozen and crossed.

        Raises:
            ShapeError: the model does not run on such a batch.
        """
        return _saved(self.config, self.device, batch_size, length, precision, frozen_dtype)


def _count(parameters: Iterable[torch.Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _layer_sizes(parts: Parts, index: int, config: Any) -> LayerSizes:
    weights = [m.weight for m in parts.layers[index].modules() if isinstance(m, nn.Linear | Conv1D)]
    # A token passes through some of a layer's experts, whose matrices are stacked.
    experts = [p for p in parts.layers[index].parameters() if p.dim() == 3]
    used = getattr(config, "num_experts_per_tok", None) or 1
    return LayerSizes(
        parameters=_count(parts.layer_parameters(index)),
        weights=_count(weights) + sum(used * p.numel() // p.shape[0] for p in experts),
    )


def _linears(layer: nn.Module) -> tuple[tuple[str, int, int, bool], ...]:
    found = []
    for path, module in layer.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            inputs, outputs = module.weight.shape[:: 1 if isinstance(module, Conv1D) else -1]
            found.append((path.rpartition(".")[2], inputs, outputs, module.bias is not None))
    return tuple(found)


def _build(config: str, n_labels: int, dtype: torch.dtype = torch.float32) -> tuple[Any, Any, Parts]:
    """The mode that gives fake tensors, the classifier of a configuration with such tensors, and its parts."""
    values = json.loads(config)
    kind = str(values.get("model_type"))
    nowhere = Path()
    described = _Described(kind, kind, nowhere, None, nowhere, "", "", values=config)
    try:
        model: Any = empty_classifier(described, n_labels, dtype, torch.device("meta"))
        model.config.use_cache = False
        if model.config.pad_token_id is None:
            model.config.pad_token_id = 0
        # The meta device runs fewer models than fake tensors of the CPU do.
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        with mode:
            model.to_empty(device="cpu").train()
            return mode, model, model_parts(model)
    except InputError as error:
        raise ShapeError(f"no predicted cost for model_type {kind!r}: {error}") from error
    # Impossible sizes raise different errors in each architecture.
    except Exception as error:
        raise ShapeError(f"no predicted cost for model_type {kind!r}: {first_line(error)}") from error


@dataclass(frozen=True)
class _Described(Checkpoint):
    """A checkpoint of which only the configuration is known, as JSON."""

    values: str = "{}"

    @property
    def config(self) -> dict[str, object]:
        read: dict[str, object] = json.loads(self.values)
        return read


@functools.lru_cache(maxsize=256)
def _saved(
    config: str, device: str, batch_size: int, length: int, precision: str, frozen_dtype: str
) -> Saved:
    mode, model, parts = _build(config, 2, torch.bfloat16 if precision == "bf16" else torch.float32)
    place = _Place(parts)
    try:
        with mode:
            trained = _kept(model, place, device, (batch_size, length), precision)
            for index, layer in enumerate(parts.layers):
                for parameter in parts.layer_parameters(index):
                    parameter.requires_grad_(False)
                if frozen_dtype == "compute" and precision == "bf16-mixed":
                    for module in layer.modules():
                        if isinstance(module, nn.Linear):
                            weight = module.weight.to(torch.bfloat16)
                            module.weight = nn.Parameter(weight, requires_grad=False)
            frozen = _kept(model, place, device, (batch_size, length), precision)
    # What a model lacks to run raises different errors in each architecture.
    except Exception as error:
        kind = json.loads(config).get("model_type")
        raise ShapeError(f"no predicted activations for model_type {kind!r}: {first_line(error)}") from error
    order = range(len(parts.layers))
    return Saved(
        trained=tuple(trained[index] for index in order),
        frozen=tuple(frozen[index] for index in order),
        front=trained[FRONT],
        behind=trained[BEHIND],
    )


FRONT, BEHIND = -1, -2


class _Place:
    """The layer that runs at the moment: its index, or ``FRONT`` or ``BEHIND`` the layers."""

    def __init__(self, parts: Parts):
        self.now = FRONT
        last = len(parts.layers) - 1
        for index, layer in enumerate(parts.layers):
            layer.register_forward_pre_hook(self._move(index))
            layer.register_forward_hook(self._move(BEHIND if index == last else index + 1))

    def _move(self, there: int) -> Any:
        def move(*_: Any) -> None:
            self.now = there

        return move


def _kept(model: Any, place: _Place, device: str, shape: tuple[int, int], precision: str) -> Counter[int]:
    """Bytes that autograd keeps in each layer, in front of the layers and behind them.

    Args:
        shape: examples and their length.
    """
    places: dict[int, set[int]] = defaultdict(set)
    kept: dict[int, torch.Tensor] = {}
    place.now = FRONT

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        key = _storage(tensor)
        places[key].add(place.now)
        kept[key] = tensor
        return tensor

    ids = torch.ones(shape, dtype=torch.long)
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"),
        _As(device),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        F.cross_entropy(logits.float(), torch.zeros(shape[0], dtype=torch.long))
    own = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers())}
    found: Counter[int] = Counter()
    for key in kept.keys() - own:
        shared = len(places[key]) > _SHARED
        found[BEHIND if shared else max(places[key])] += kept[key].untyped_storage().nbytes()
    return found


def _storage(tensor: torch.Tensor) -> int:
    identity: int = StorageWeakRef(tensor.untyped_storage()).cdata
    return identity


class _As(TorchFunctionMode):
    """Runs a model on the CPU's fake tensors as on a device of another type.

    On CUDA, autocast computes more operations in float32, a dropout mask has one byte for each element,
    and attention with dropout keeps no matrix of its weights.
    """

    def __init__(self, device: str):
        super().__init__()
        self._cuda = device == "cuda"

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if "grouped_mm" in name:
            # Fake tensors have no grouped product in float32; each row meets one expert's matrix.
            return torch.matmul(args[0], args[1][0])
        if not self._cuda:
            return func(*args, **kwargs)
        if name == "dropout":
            p, training = _argument(args, kwargs, 1, "p", 0.5), _argument(args, kwargs, 2, "training", True)
            return torch.native_dropout(args[0], p, training)[0] if p and training else args[0]
        if name == "scaled_dot_product_attention":
            kwargs["dropout_p"] = 0.0
        if name in _FLOAT32_ON_CUDA and torch.is_autocast_enabled("cpu"):
            args = tuple(
                a.float() if isinstance(a, torch.Tensor) and a.dtype == torch.bfloat16 else a for a in args
            )
        return func(*args, **kwargs)


def _argument(args: tuple[Any, ...], kwargs: Mapping[str, Any], place: int, name: str, default: Any) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, default)
