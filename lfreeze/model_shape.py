"""A model's sizes, read from its configuration alone: the inputs of the closed forms of cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lfreeze.errors import InputError, shown
from lfreeze.shape import LayerSizes, Saved

BYTES = {"fp32": 4, "bf16-mixed": 4, "bf16": 2}  # of weights, gradients, moments, residual stream
COMPUTE_BYTES = {"fp32": 4, "bf16-mixed": 2, "bf16": 2}  # of the inputs and outputs of linear maps
# Beyond every model there is, and far below what 64 bits hold when all of them are multiplied.
_MOST_LAYERS, _MOST_SIZE = 10_000, 2**24


def mask_bytes(device: str, element: int) -> int:
    """Bytes of a dropout mask for each element: one on CUDA, on the CPU as many as the element has."""
    return 1 if device == "cuda" else element


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
        device: type of the device that it trains on; autograd keeps other tensors on the CPU than on CUDA.
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
    device: str = "cpu"
    model_type: str = ""
    max_positions: int | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any], device: str = "cpu") -> ModelShape:
        """Read a hub-format ``config.json``.

        Raises:
            ShapeError: the architecture is unknown, or a size is missing.
        """
        kind = config.get("model_type")
        inner_name = "ffn_dim" if kind == "opt" else "intermediate_size"
        if not isinstance(kind, str) or kind not in _ARCHITECTURES:
            raise ShapeError(
                f"no closed form for model_type {shown(kind)}; known are {', '.join(_ARCHITECTURES)}"
            )
        required = ("hidden_size", inner_name, "num_attention_heads", "num_hidden_layers", "vocab_size")
        for name in (*required, "num_key_value_heads", "head_dim", "max_position_embeddings"):
            value, optional = config.get(name), name not in required
            if optional and value is None:
                continue
            most = _MOST_LAYERS if name == "num_hidden_layers" else _MOST_SIZE
            if type(value) is not int or not 0 < value <= most:
                raise ShapeError(
                    f"a configuration of model_type {kind!r} needs {name} from 1 to {most:,}, not {shown(value)}"
                )
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
        if not dim:
            raise ShapeError(f"a hidden_size of {hidden} has no part for each of {heads} heads")
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
            positions=(config.get("max_position_embeddings") or 2048) + 2 if kind == "opt" else 0,
            linears=tuple((name, a, b, name in biases) for name, a, b in attention + mlp),
            norm_vectors=norm_size * (1 if parallel else 2),
            final_norm_vectors=norm_size,
            gated=gated,
            parallel=parallel,
            activation_copies=copies,
            device=device,
            model_type=str(kind),
            max_positions=config.get("max_position_embeddings"),
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
    def layers(self) -> tuple[LayerSizes, ...]:
        """All layers, which are equal."""
        return (LayerSizes(self.layer_parameters, self.layer_weights),) * self.n_layers

    @property
    def products_width(self) -> int:
        return self.n_heads * self.head_dim

    @property
    def embedding_parameters(self) -> int:
        return (self.vocab_size + self.positions) * self.hidden_size

    @property
    def norm_parameters(self) -> int:
        """Parameters of the final norm."""
        return self.final_norm_vectors * self.hidden_size

    def head_parameters(self, n_labels: int) -> int:
        """Parameters of the head, which has no bias."""
        return self.hidden_size * n_labels

    def head_weights(self, n_labels: int) -> int:
        """Elements of the head's matrix."""
        return self.head_parameters(n_labels)

    @property
    def head_tied(self) -> bool:
        return False

    @property
    def largest_tensors(self) -> tuple[int, int]:
        return self.vocab_size * self.hidden_size, max(a * b for _, a, b, _ in self.linears)

    def parameters(self, n_labels: int) -> int:
        """All parameters of the classifier."""
        layers = self.n_layers * self.layer_parameters
        return self.embedding_parameters + layers + self.norm_parameters + self.head_parameters(n_labels)

    def saved(self, batch_size: int, length: int, precision: str, frozen_dtype: str) -> Saved:
        """What autograd keeps of a batch, in bytes.

        Kept whether or not a layer trains: the norms' inputs, the factors of attention's products, the
        inputs of activation and gate, and autocast's bf16 copies of weights. Kept for weight gradients
        alone: the linear maps' inputs and the normalised vectors.
        """
        tokens = batch_size * length

        def every_layer(trains: bool) -> tuple[int, ...]:
            copies = precision == "bf16-mixed" and (trains or frozen_dtype != "compute")
            size = tokens * self._saved_per_token(trains, precision)
            return (size + (2 * self.layer_weights if copies else 0),) * self.n_layers

        hidden = tokens * self.hidden_size * BYTES[precision]
        # Behind the layers: the final norm's input and the head's; for the norm, its normalised vectors.
        mlp = tokens * self._activation_bytes(precision) if self.parallel else 0
        return Saved(
            every_layer(True), every_layer(False), front=0, behind=2 * hidden, norm=hidden, parallel=mlp
        )

    def vector_parameters(self, which: str, *, embeddings: bool) -> int:
        """The ``"biases"``, or the parameters of ``"norms"``, of the layers and behind them; embeddings have none."""
        vectors = self.n_layers * self.norm_vectors + self.final_norm_vectors
        if which == "norms":
            return vectors * self.hidden_size
        of_linears = self.n_layers * sum(b for _, _, b, biased in self.linears if biased)
        # A norm of two vectors has a weight and a bias.
        of_norms = vectors // 2 * self.hidden_size if self.final_norm_vectors == 2 else 0
        return of_linears + of_norms

    def saved_for_vectors(
        self, which: str, batch_size: int, length: int, precision: str, frozen_dtype: str
    ) -> tuple[int, ...]:
        """What autograd keeps of a batch in each layer: norms without a mean keep their normalised vectors."""
        kept = self.saved(batch_size, length, precision, frozen_dtype).frozen
        if which == "norms" and self.final_norm_vectors == 1:
            normalised = batch_size * length * self.norm_vectors * self.hidden_size * BYTES[precision]
            return tuple(size + normalised for size in kept)
        return kept

    def _saved_per_token(self, trains: bool, precision: str) -> int:
        residual, compute = BYTES[precision], COMPUTE_BYTES[precision]
        hidden, inner = self.hidden_size, self.intermediate_size
        norms = 1 if self.parallel else 2
        # Attention's inputs and output. Shared key-value heads are repeated to the number of heads; a single
        # one is only expanded, which copies nothing.
        narrow = self.head_dim if self.n_kv_heads == 1 else self.products_width
        layer_norm = self.final_norm_vectors == 2
        # A norm without a mean computes in float32 whatever its input.
        kept = norms * hidden * (residual if layer_norm else 4) + 4 * self.n_heads
        kept += 2 * (self.products_width + narrow) * compute + self._activation_bytes(precision)
        if layer_norm:
            # Two dropout masks, and a layer norm's two statistics.
            kept += 2 * hidden * mask_bytes(self.device, compute) + 8 * norms
        if trains:
            # Under autocast, each linear map that reads a norm's result has its own copy of it.
            readers = sum(name in _READ_NORM for name, *_ in self.linears)
            kept += (readers if precision == "bf16-mixed" else norms) * hidden * compute
            # The CPU's attention leaves its output in an order that the next linear map has to copy.
            kept += self.products_width * compute if self.device == "cpu" else 0
            # ReLU keeps its result, which is the next linear map's input.
            kept += 0 if self.activation_copies == 1 else inner * compute
            kept += 0 if layer_norm else norms * hidden * residual
        return kept

    def _activation_bytes(self, precision: str) -> int:
        """For one token, what is kept of the MLP between its first and its last linear map."""
        copies = self.activation_copies * COMPUTE_BYTES[precision]
        if self.activation_copies == _ELEMENTARY and self.device == "cuda" and precision == "bf16-mixed":
            # On CUDA, autocast computes the power in float32, and all but the halved input after it.
            copies += 2 * (_ELEMENTARY - 1)
        return copies * self.intermediate_size


def has_formula(config: Mapping[str, Any]) -> bool:
    """Whether ``ModelShape`` knows a configuration's architecture."""
    kind, hidden = config.get("model_type"), config.get("hidden_size")
    return (
        isinstance(kind, str)
        and kind in _ARCHITECTURES
        and config.get("word_embed_proj_dim", hidden) == hidden
    )


# By model_type: gated MLP, parallel block, vectors in a norm, which linear maps have a bias, and vectors
# that the activation keeps. Phi's consists of elementary functions, each of which keeps its own input.
_ELEMENTARY = 4
_READ_NORM = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
_ARCHITECTURES = {
    "gemma": (True, False, 1, "none", 3),
    "phi": (False, True, 2, "all", _ELEMENTARY),
    "minicpm": (True, False, 1, "none", 3),
    "granite": (True, False, 1, "none", 3),
    "llama": (True, False, 1, "none", 3),
    "mistral": (True, False, 1, "none", 3),
    "qwen2": (True, False, 1, "qkv", 3),
    "opt": (False, False, 2, "all", 1),
}
