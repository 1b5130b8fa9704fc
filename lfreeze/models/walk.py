"""The sizes of any model that transformers builds, without a formula: its own code runs on fake tensors.

``lfreeze.blocks`` tells the roles of the parts, and a forward pass what autograd keeps, layer by layer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lfreeze.blocks import Parts
from lfreeze.models.fake import fake_model, saved
from lfreeze.shape import LayerSizes, Saved
from lfreeze.vectors import BIASES, NORMS, vectors_in


@dataclass(frozen=True)
class WalkedShape:
    """The sizes of a sequence classifier or a causal language model, counted in the model of its configuration.

    Attributes:
        config: its configuration as JSON.
        device: type of the device that it trains on; autograd keeps other tensors on the CPU than on CUDA.
        layers: parameters and weights of each layer, in the order of execution.
        linears: of one layer, each linear map's (name, inputs, outputs, bias).
        products_width: heads times their size, the width of attention's two products.
        language_head: elements of a causal language model's output matrix; None for a classifier.
        vectors: biases and norms: parameters in the layers and behind them, and in front of the layers.
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
    largest_tensors: tuple[int, int]
    language_head: int | None = None
    head_tied: bool = False
    max_positions: int | None = None
    vectors: tuple[tuple[str, int, int], ...] = ()
    parallel: bool = False

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], device: str = "cpu", *, causal_lm: bool = False
    ) -> WalkedShape:
        """Build the model of a hub-format ``config.json`` without weights and count its parts.

        Args:
            causal_lm: a causal language model instead of a sequence classifier.

        Raises:
            ShapeError: transformers has no such model of the architecture, or it does not run.
        """
        text = json.dumps(dict(config), sort_keys=True)
        _, model, parts = fake_model(text, None if causal_lm else 2)
        wider = parts if causal_lm else fake_model(text, 3)[2]
        output = model.get_output_embeddings().weight if causal_lm else None
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
            largest_tensors=(
                _largest(parts.embeddings),
                max(_largest(layer.parameters()) for layer in parts.layers),
            ),
            language_head=None if output is None else output.numel(),
            head_tied=any(p is output for p in parts.embeddings),
            max_positions=_positions(model, getattr(text_config, "max_position_embeddings", None)),
            vectors=tuple(_vectors(model, parts, which) for which in (BIASES, NORMS)),
        )

    @property
    def model_type(self) -> str:
        return str(json.loads(self.config).get("model_type"))

    def head_parameters(self, n_labels: int) -> int:
        """Parameters of the head, poolers included, without a matrix that is tied to the embeddings."""
        return self.head_of_two + (n_labels - 2) * (self.head_of_three - self.head_of_two)

    def head_weights(self, n_labels: int) -> int:
        """Elements of the head's matrices."""
        return self.head_parameters(n_labels) if self.language_head is None else self.language_head

    def parameters(self, n_labels: int) -> int:
        """All parameters of the model."""
        layers = sum(layer.parameters for layer in self.layers)
        return self.embedding_parameters + layers + self.norm_parameters + self.head_parameters(n_labels)

    def saved(self, batch_size: int, length: int, precision: str, frozen_dtype: str) -> Saved:
        """What autograd keeps of a batch in each layer, if the layer trains and if it is frozen and crossed.

        Raises:
            ShapeError: the model does not run on such a batch.
        """
        return saved(self.config, self._labels, self.device, batch_size, length, precision, frozen_dtype)

    def vector_parameters(self, which: str, *, embeddings: bool) -> int:
        """The ``"biases"``, or the parameters of ``"norms"``, of the layers and behind them, and with ``embeddings``."""
        inside, in_front = next(counts for name, *counts in self.vectors if name == which)
        return inside + (in_front if embeddings else 0)

    def saved_for_vectors(
        self, which: str, batch_size: int, length: int, precision: str, frozen_dtype: str
    ) -> tuple[int, ...]:
        """What autograd keeps of a batch in each layer, if only its biases or norms train."""
        return saved(
            self.config, self._labels, self.device, batch_size, length, precision, frozen_dtype, which
        ).frozen

    @property
    def _labels(self) -> int | None:
        return 2 if self.language_head is None else None


def _count(parameters: Iterable[torch.Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _positions(model: Any, declared: int | None) -> int | None:
    """Tokens for which there are positions: a table with a row for padding starts behind that row, as RoBERTa's."""
    if declared is None or declared < 1:
        # XLNet's configuration declares -1.
        return None
    words = model.get_input_embeddings()
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module is not words and module.num_embeddings == declared:
            return declared if module.padding_idx is None else declared - module.padding_idx - 1
    return declared


def _largest(parameters: Iterable[torch.Tensor]) -> int:
    return max((parameter.numel() for parameter in parameters), default=0)


def _layer_sizes(parts: Parts, index: int, config: Any) -> LayerSizes:
    weights = [m.weight for m in parts.layers[index].modules() if isinstance(m, nn.Linear | Conv1D)]
    # A token passes through some of a layer's experts, whose matrices are stacked.
    experts = [p for p in parts.layers[index].parameters() if p.dim() == 3]
    used = getattr(config, "num_experts_per_tok", None) or 1
    return LayerSizes(
        parameters=_count(parts.layer_parameters(index)),
        weights=_count(weights) + sum(used * p.numel() // p.shape[0] for p in experts),
    )


def _vectors(model: nn.Module, parts: Parts, which: str) -> tuple[str, int, int]:
    """The name of a set of vectors, its parameters in and behind the layers, and those in front of them."""
    in_head, in_front = {id(p) for p in parts.head}, {id(p) for p in parts.embeddings}
    found = [p for p in vectors_in(model, which) if id(p) not in in_head]
    front = _count(p for p in found if id(p) in in_front)
    return which, _count(found) - front, front


def _linears(layer: nn.Module) -> tuple[tuple[str, int, int, bool], ...]:
    found = []
    for path, module in layer.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            inputs, outputs = module.weight.shape[:: 1 if isinstance(module, Conv1D) else -1]
            found.append((path.rpartition(".")[2], inputs, outputs, module.bias is not None))
    return tuple(found)
