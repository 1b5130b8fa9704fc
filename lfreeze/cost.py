"""Closed-form cost of a strategy on a model: FLOPs of a step, bytes of training.

A multiplication and an addition are two FLOPs. Each layer has three products of the same size per step:
forward, input gradient, weight gradient. Freezing saves the third; a layer below every trainable
parameter also saves the second and keeps no activations.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from lfreeze.model_shape import ModelShape

_BYTES = {"fp32": 4, "bf16-mixed": 4, "bf16": 2}  # of weights, gradients, moments, residual stream
_COMPUTE_BYTES = {"fp32": 4, "bf16-mixed": 2, "bf16": 2}  # of the inputs and outputs of linear maps


@dataclass(frozen=True)
class Cost:
    """Predicted cost of one optimiser step; the parts of the peak have the names of ``training.meter``.

    Attributes:
        backward_depth: layers that the backward pass crosses, counted from the output.
        weights_bytes: the static memory of the model.
        activation_bytes: what autograd keeps between the forward and the backward pass.
    """

    trainable_parameters: int
    total_parameters: int
    backward_depth: int
    forward_flops: int
    backward_flops: int
    weights_bytes: int
    gradient_bytes: int
    optimiser_bytes: int
    activation_bytes: int

    @property
    def training_bytes(self) -> int:
        """The peak above the weights.

        Activations shrink during the backward pass while gradients grow, so the peak is at one of
        its two ends.
        """
        return self.optimiser_bytes + max(self.activation_bytes, self.gradient_bytes)

    def step_time_ratio(self, reference: Cost) -> float:
        """Ideal step time relative to another cost: the ratio of their FLOPs."""
        flops = self.forward_flops + self.backward_flops
        return flops / (reference.forward_flops + reference.backward_flops)


@dataclass(frozen=True)
class Adapters:
    """Low-rank adapters on the linear maps of every layer, as LoRA trains them.

    Attributes:
        targets: names of the linear maps that have an adapter each.
    """

    rank: int
    targets: Collection[str] = ("q_proj", "v_proj")

    def parameters(self, shape: ModelShape) -> int:
        """Parameters of one layer's adapters."""
        return self.rank * sum(a + b for name, a, b, _ in shape.linears if name in self.targets)


def cost(
    shape: ModelShape,
    frozen_layers: Collection[int],
    *,
    embeddings_frozen: bool,
    n_labels: int,
    batch_size: int,
    length: int,
    precision: str = "bf16-mixed",
    frozen_dtype: str = "same",
    adapters: Adapters | None = None,
) -> Cost:
    """The cost of training with the given layers frozen, on full batches of ``length`` tokens.

    Args:
        frozen_layers: counted from 0 at the input.
        length: tokens of each example.
        adapters: freeze the whole base model and train these and the head.
    """
    frozen = set(range(shape.n_layers)) if adapters else set(frozen_layers)
    adapter_parameters = adapters.parameters(shape) if adapters else 0
    head = shape.hidden_size * n_labels
    trained_layers = shape.n_layers - len(frozen)
    trainable = head + adapter_parameters * shape.n_layers + trained_layers * shape.layer_parameters
    trainable += 0 if adapters else shape.norm_parameters
    trainable += 0 if embeddings_frozen else shape.embedding_parameters
    total = shape.parameters(n_labels) + adapter_parameters * shape.n_layers
    if adapters or not embeddings_frozen:
        depth = shape.n_layers
    else:
        depth = shape.n_layers - min(set(range(shape.n_layers)) - frozen, default=shape.n_layers)

    tokens = batch_size * length
    weights = 2 * tokens * shape.layer_weights
    products = 4 * tokens * length * shape.n_heads * shape.head_dim
    adapter_flops = 2 * tokens * adapter_parameters
    head_flops = 2 * tokens * head
    forward = shape.n_layers * (weights + products + adapter_flops) + head_flops
    # Attention's two products have two gradients each; the head always has both of its own.
    backward = (
        depth * (weights + 2 * products + 2 * adapter_flops) + trained_layers * weights + 2 * head_flops
    )
    if adapters:
        backward -= _first_layer_savings(shape, tokens, length, adapters)

    size = _BYTES[precision]
    stored = total * size
    if frozen_dtype == "compute":
        stored -= len(frozen) * shape.layer_weights * (size - _COMPUTE_BYTES[precision])
    crossed = range(shape.n_layers - depth, shape.n_layers)
    activations = sum(
        tokens * _saved_per_token(shape, layer not in frozen, precision)
        + _saved_weight_copies(shape, layer not in frozen, precision, frozen_dtype)
        for layer in crossed
    )
    # The final norm's input, its normalised vectors, and the head's input.
    activations += tokens * shape.hidden_size * size * (2 if adapters else 3)
    if adapters:
        # Dropout gives each adapter its own input and keeps its mask.
        per_adapter = sum(
            2 * a + adapters.rank for name, a, _, _ in shape.linears if name in adapters.targets
        )
        activations += shape.n_layers * tokens * per_adapter * _COMPUTE_BYTES[precision]
        if shape.parallel:
            # The first layer's MLP is parallel to attention, so that its input depends on nothing that trains.
            activations -= tokens * shape.intermediate_size * 4 * _COMPUTE_BYTES[precision]
    return Cost(
        trainable_parameters=trainable,
        total_parameters=total,
        backward_depth=depth,
        forward_flops=forward,
        backward_flops=backward,
        weights_bytes=stored,
        gradient_bytes=trainable * size,
        optimiser_bytes=2 * trainable * size,
        activation_bytes=activations,
    )


def _first_layer_savings(shape: ModelShape, tokens: int, length: int, adapters: Adapters) -> int:
    """FLOPs that the adapters' backward pass skips in the first layer, whose input needs no gradient."""
    rank, targets = adapters.rank, adapters.targets
    inputs = ("q_proj", "k_proj", "v_proj")
    saved = sum(2 * tokens * a * b for name, a, b, _ in shape.linears if name in inputs)
    saved += sum(
        2 * tokens * a * rank for name, a, _, _ in shape.linears if name in inputs and name in targets
    )
    query, key, value = (name in targets for name in inputs)
    done = value + (query or key) + query + key
    saved += (4 - done) * 2 * tokens * length * shape.n_heads * shape.head_dim
    if shape.parallel:
        # The MLP is parallel to attention, so that its input depends on nothing that trains.
        saved += sum(
            2 * tokens * a * b for name, a, b, _ in shape.linears if name in ("up_proj", "down_proj")
        )
    return saved


def _saved_per_token(shape: ModelShape, trains: bool, precision: str) -> int:
    """Bytes that autograd keeps for one token in one layer that the backward pass crosses.

    Kept whether or not the layer trains: the norms' inputs, the factors of attention's products, the
    inputs of activation and gate. Kept for weight gradients alone: the linear maps' inputs and the
    normalised vectors.
    """
    residual, compute = _BYTES[precision], _COMPUTE_BYTES[precision]
    hidden, inner = shape.hidden_size, shape.intermediate_size
    wide = shape.n_heads * shape.head_dim
    norms = 1 if shape.parallel else 2
    # Shared key-value heads are repeated to the number of heads before attention reads them.
    kept = norms * hidden * residual + 4 * wide * compute + 4 * shape.n_heads
    kept += shape.activation_copies * inner * compute
    layer_norm = shape.final_norm_vectors == 2
    if layer_norm:
        kept += 2 * hidden * residual + 8 * norms  # dropout masks, and a layer norm's two statistics
    if trains:
        kept += norms * hidden * compute
        # ReLU keeps its result, which is the next linear map's input.
        kept += 0 if shape.activation_copies == 1 else inner * compute
        kept += 0 if layer_norm else norms * hidden * residual
    return kept


def _saved_weight_copies(shape: ModelShape, trains: bool, precision: str, frozen_dtype: str) -> int:
    """Autocast's bf16 copies of a layer's weights, kept for the input gradient."""
    if precision != "bf16-mixed" or (not trains and frozen_dtype == "compute"):
        return 0
    return 2 * shape.layer_weights
