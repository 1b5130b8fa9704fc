"""A model's sizes, read from its configuration alone: the inputs of the closed forms of cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lfreeze.errors import InputError


class ShapeError(InputError):
    """A configuration that cannot be read; the message names the architecture and the known ones."""


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a decoder as a sequence classifier.

    Attributes:
        linears: of one layer, each linear map's (name, inputs, outputs, bias).
        norm_vectors: parameter vectors of the hidden size in the norms of one layer.
        final_norm_vectors: the same in the final norm.
        gated: whether the MLP multiplies its output by a gate.
        positions: rows of the table of learned positions; 0 for rotary positions.
        parallel: whether attention and MLP read the same norm and add to the same residual.
        activation_copies: vectors of the MLP's inner size that autograd keeps for activation and gate.
    """

    n_layers: int
    hidden_size: int
    intermediate_size: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    positions: int
    linears: tuple[tuple[str, int, int, bool], ...]
    norm_vectors: int
    final_norm_vectors: int
    gated: bool
    parallel: bool
    activation_copies: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelShape:
        """Read a hub-format ``config.json``.

        Raises:
            ShapeError: the architecture is unknown, or a size is missing.
        """
        kind = config.get("model_type")
        inner_name = "ffn_dim" if kind == "opt" else "intermediate_size"
        for name in ("hidden_size", inner_name, "num_attention_heads", "num_hidden_layers", "vocab_size"):
            if kind in _ARCHITECTURES and type(config.get(name)) is not int:
                raise ShapeError(
                    f"a configuration of model_type {kind!r} needs {name}, not {config.get(name)!r}"
                )
        if kind not in _ARCHITECTURES:
            raise ShapeError(f"no closed form for model_type {kind!r}; known are {', '.join(_ARCHITECTURES)}")
        projected = config.get("word_embed_proj_dim", config["hidden_size"])
        if projected != config["hidden_size"]:
            raise ShapeError(
                f"no closed form for a model of type {kind!r} with word_embed_proj_dim = {projected!r}; "
                f"it must be the hidden_size, {config['hidden_size']}"
            )
        gated, parallel, norm_size, biased, copies = _ARCHITECTURES[kind]
        hidden, inner = config["hidden_size"], config[inner_name]
        heads = config["num_attention_heads"]
        kv_heads = config.get("num_key_value_heads") or heads
        dim = config.get("head_dim") or hidden // heads
        wide, narrow = heads * dim, kv_heads * dim
        attention = [("q_proj", hidden, wide), ("k_proj", hidden, narrow), ("v_proj", hidden, narrow)]
        attention.append(("o_proj", wide, hidden))
        names = ("gate_proj", "up_proj") if gated else ("up_proj",)
        mlp = [*((name, hidden, inner) for name in names), ("down_proj", inner, hidden)]
        biases = {
            name for name, *_ in attention + mlp if biased == "all" or (name[0] in "qkv" and biased == "qkv")
        }
        return cls(
            n_layers=config["num_hidden_layers"],
            hidden_size=hidden,
            intermediate_size=inner,
            n_heads=heads,
            n_kv_heads=kv_heads,
            head_dim=dim,
            vocab_size=config["vocab_size"],
            # OPT's table of learned positions starts with two unused rows.
            positions=config.get("max_position_embeddings", 2048) + 2 if kind == "opt" else 0,
            linears=tuple((name, a, b, name in biases) for name, a, b in attention + mlp),
            norm_vectors=norm_size * (1 if parallel else 2),
            final_norm_vectors=norm_size,
            gated=gated,
            parallel=parallel,
            activation_copies=copies,
        )

    @property
    def layer_weights(self) -> int:
        """Elements of one layer's weight matrices."""
        return sum(a * b for _, a, b, _ in self.linears)

    @property
    def layer_parameters(self) -> int:
        biases = sum(b for _, _, b, biased in self.linears if biased)
        return self.layer_weights + biases + self.norm_vectors * self.hidden_size

    @property
    def embedding_parameters(self) -> int:
        return (self.vocab_size + self.positions) * self.hidden_size

    @property
    def norm_parameters(self) -> int:
        """Parameters of the final norm."""
        return self.final_norm_vectors * self.hidden_size

    def parameters(self, n_labels: int) -> int:
        """All parameters of the classifier, whose head has no bias."""
        layers = self.n_layers * self.layer_parameters
        return self.embedding_parameters + layers + self.norm_parameters + self.hidden_size * n_labels


# By model_type: gated MLP, parallel block, vectors in a norm, which linear maps have a bias, and vectors
# that the activation keeps. Phi's consists of elementary functions, each of which keeps its own input.
_ARCHITECTURES = {
    "gemma": (True, False, 1, "none", 3),
    "phi": (False, True, 2, "all", 4),
    "minicpm": (True, False, 1, "none", 3),
    "granite": (True, False, 1, "none", 3),
    "llama": (True, False, 1, "none", 3),
    "mistral": (True, False, 1, "none", 3),
    "qwen2": (True, False, 1, "qkv", 3),
    "opt": (False, False, 2, "all", 1),
}
