"""A model on torch's fake tensors, which compute shapes alone: its parts, and what autograd keeps of a batch.

No weight is read and no number computed.
"""

from __future__ import annotations

import functools
import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lfreeze.blocks import Parts, model_parts
from lfreeze.errors import InputError, first_line
from lfreeze.hf_logging import silence_transformers
from lfreeze.model_shape import ShapeError
from lfreeze.models.catalog import Checkpoint
from lfreeze.models.loading import empty_model
from lfreeze.shape import Saved
from lfreeze.vectors import vectors_in

# What autocast computes in float32 on CUDA alone, of the operations that models contain.
_FLOAT32_ON_CUDA = frozenset(
    (
        "pow", "__pow__", "__rpow__", "exp", "expm1", "log", "log1p", "rsqrt", "reciprocal", "softplus", "softmax",
        "log_softmax", "layer_norm", "group_norm", "norm", "sum", "cumsum", "prod", "logsumexp",
    )
)  # fmt: skip
# Storages in more places than this, such as masks and rotary angles, belong to no single layer.
_SHARED = 2


def fake_model(
    config: str, n_labels: int | None, dtype: torch.dtype = torch.float32
) -> tuple[FakeTensorMode, Any, Parts]:
    """The mode that gives fake tensors, the model of a configuration with such tensors, and its parts.

    Args:
        config: the content of a hub-format ``config.json``.
        n_labels: of a sequence classifier; None for a causal language model.

    Raises:
        ShapeError: transformers has no such model of the architecture, or it cannot be frozen.
    """
    values = json.loads(config)
    kind = str(values.get("model_type"))
    nowhere = Path()
    described = _Described(kind, kind, nowhere, None, nowhere, "", "", values=config)
    try:
        model: Any = empty_model(described, n_labels, dtype, torch.device("meta"))
        model.config.use_cache = False
        if getattr(model.config, "pad_token_id", None) is None:
            model.config.pad_token_id = 0
        # The meta device runs fewer models than fake tensors of the CPU do.
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        with silence_transformers(), mode, _As("cpu"):
            model.to_empty(device="cpu").train()
            # Moving has separated an output head from the embeddings that it shares its weight with.
            model.tie_weights()
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
def saved(
    config: str,
    n_labels: int | None,
    device: str,
    batch_size: int,
    length: int,
    precision: str,
    frozen_dtype: str,
    vectors: str = "",
) -> Saved:
    """What autograd keeps of a batch in each layer, if the layer trains and if it is frozen and crossed.

    Args:
        config, n_labels: as in ``fake_model``.
        device: type of the device that the model trains on.
        vectors: a name of ``lfreeze.vectors``; these then train in the layers that are frozen otherwise.

    Raises:
        ShapeError: the model does not run on such a batch.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    mode, model, parts = fake_model(config, n_labels, dtype)
    place = _Place(parts)
    batch = _batch(batch_size, length, n_labels)
    try:
        with silence_transformers(), mode:
            trained = _kept(model, place, device, batch, precision)
            for index, layer in enumerate(parts.layers):
                for parameter in parts.layer_parameters(index):
                    parameter.requires_grad_(False)
                for parameter in vectors_in(layer, vectors) if vectors else ():
                    parameter.requires_grad_(True)
                if frozen_dtype == "compute" and precision == "bf16-mixed":
                    for module in layer.modules():
                        if isinstance(module, nn.Linear):
                            weight = module.weight.to(torch.bfloat16)
                            module.weight = nn.Parameter(weight, requires_grad=False)
            frozen = _kept(model, place, device, batch, precision)
    # What a model lacks to run raises different errors in each architecture.
    except Exception as error:
        kind = json.loads(config).get("model_type")
        raise ShapeError(f"no predicted activations for model_type {kind!r}: {first_line(error)}") from error
    order = range(len(parts.layers))
    return Saved(
        trained=tuple(trained[index] for index in order),
        frozen=tuple(frozen[index] for index in order),
        front=trained[_FRONT],
        behind=trained[_BEHIND],
        logits=0 if n_labels else batch_size * length * model.get_output_embeddings().weight.shape[0],
    )


_FRONT, _BEHIND = -1, -2


class _Place:
    """The layer that runs at the moment: its index, or ``_FRONT`` or ``_BEHIND`` the layers."""

    def __init__(self, parts: Parts):
        self.now = _FRONT
        last = len(parts.layers) - 1
        for index, layer in enumerate(parts.layers):
            layer.register_forward_pre_hook(self._move(index))
            layer.register_forward_hook(self._move(_BEHIND if index == last else index + 1))

    def _move(self, there: int) -> Any:
        def move(*_: Any) -> None:
            self.now = there

        return move


def _batch(batch_size: int, length: int, n_labels: int | None) -> dict[str, torch.Tensor]:
    """A batch without padding, with the tokens as labels for a language model."""
    ids = torch.ones((batch_size, length), dtype=torch.long)
    tokens = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return tokens if n_labels else {**tokens, "labels": ids}


def _kept(
    model: Any, place: _Place, device: str, batch: Mapping[str, torch.Tensor], precision: str
) -> Counter[int]:
    """Bytes that autograd keeps in each layer, in front of the layers and behind them."""
    places: dict[int, set[int]] = defaultdict(set)
    kept: dict[int, torch.Tensor] = {}
    place.now = _FRONT

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        key = _storage(tensor)
        places[key].add(place.now)
        kept[key] = tensor
        return tensor

    with (
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"),
        _As(device),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        output = model(**batch)
        if "labels" not in batch:
            F.cross_entropy(output.logits.float(), batch["input_ids"][:, 0])
    own = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers())}
    found: Counter[int] = Counter()
    for key in kept.keys() - own:
        shared = len(places[key]) > _SHARED
        found[_BEHIND if shared else max(places[key])] += kept[key].untyped_storage().nbytes()
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
