"""Closed-form cost of a strategy on a model: FLOPs of a step, bytes of training.

A multiplication and an addition are two FLOPs. Each layer has three products of the same size per step:
forward, input gradient, weight gradient. Freezing saves the third; a layer below every trainable
parameter also saves the second and keeps no activations.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from lfreeze.model_shape import BYTES, COMPUTE_BYTES, Shape, mask_bytes


@dataclass(frozen=True)
class Cost:
    """Predicted cost of one optimiser step; the parts of the peak have the names of ``training.meter``.

    Attributes:
        backward_depth: layers that the backward pass crosses, counted from the output.
        weights_bytes: the static memory of the model.
        activation_bytes: what autograd keeps between the forward and the backward pass.
        accumulated: whether the step has several micro-batches, so that gradients of the earlier ones are
            held while a later one's activations are.
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
    accumulated: bool = False

    @property
    def training_bytes(self) -> int:
        """The peak above the weights.

        Activations shrink during the backward pass while gradients grow, so the peak is at one of
        its two ends, unless the gradients are there already.
        """
        if self.accumulated:
            return self.optimiser_bytes + self.activation_bytes + self.gradient_bytes
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

    def parameters(self, shape: Shape) -> int:
        """Parameters of one layer's adapters."""
        return self.rank * sum(a + b for name, a, b, _ in shape.linears if name in self.targets)


def cost(
    shape: Shape,
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
    head = shape.head_parameters(n_labels)
    trained = [layer for index, layer in enumerate(shape.layers) if index not in frozen]
    trainable = head + adapter_parameters * shape.n_layers + sum(layer.parameters for layer in trained)
    trainable += 0 if adapters else shape.norm_parameters
    trainable += 0 if embeddings_frozen else shape.embedding_parameters
    total = shape.parameters(n_labels) + adapter_parameters * shape.n_layers
    if adapters or not embeddings_frozen:
        depth = shape.n_layers
    else:
        depth = shape.n_layers - min(set(range(shape.n_layers)) - frozen, default=shape.n_layers)
    crossed = range(shape.n_layers - depth, shape.n_layers)

    tokens = batch_size * length
    products = 4 * tokens * length * shape.products_width
    adapter_flops = 2 * tokens * adapter_parameters
    head_flops = 2 * tokens * head
    weights = [2 * tokens * layer.weights for layer in shape.layers]
    forward = sum(weights) + shape.n_layers * (products + adapter_flops) + head_flops
    # Attention's two products have two gradients each; the head always has both of its own.
    backward = depth * (2 * products + 2 * adapter_flops) + 2 * head_flops
    backward += sum(weights[i] for i in crossed) + sum(2 * tokens * layer.weights for layer in trained)
    if adapters:
        backward -= _first_layer_savings(shape, tokens, length, adapters)

    size = BYTES[precision]
    stored = total * size
    if frozen_dtype == "compute":
        saving = size - COMPUTE_BYTES[precision]
        stored -= sum(shape.layers[i].weights for i in frozen) * saving
    saved = shape.saved(batch_size, length, precision, frozen_dtype)
    activations = saved.behind + sum(saved.frozen[i] if i in frozen else saved.trained[i] for i in crossed)
    activations += saved.norm if not adapters else 0
    activations += saved.front if not embeddings_frozen else 0
    if adapters:
        # Dropout gives each adapter its own input and keeps its mask.
        kept = COMPUTE_BYTES[precision]
        mask = mask_bytes(shape.device, kept)
        adapted = [a for name, a, _, _ in shape.linears if name in adapters.targets]
        per_token = sum(a * (kept + mask) + adapters.rank * kept for a in adapted)
        activations += shape.n_layers * tokens * per_token - saved.parallel
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


def _first_layer_savings(shape: Shape, tokens: int, length: int, adapters: Adapters) -> int:
    """FLOPs that the adapters' backward pass skips in the first layer, whose input needs no gradient."""
    rank, targets = adapters.rank, adapters.targets
    inputs = ("q_proj", "k_proj", "v_proj")
    saved = sum(2 * tokens * a * b for name, a, b, _ in shape.linears if name in inputs)
    saved += sum(
        2 * tokens * a * rank for name, a, _, _ in shape.linears if name in inputs and name in targets
    )
    query, key, value = (name in targets for name in inputs)
    done = value + (query or key) + query + key
    saved += (4 - done) * 2 * tokens * length * shape.products_width
    if shape.parallel:
        # The MLP is parallel to attention, so that its input depends on nothing that trains.
        saved += sum(
            2 * tokens * a * b for name, a, b, _ in shape.linears if name in ("up_proj", "down_proj")
        )
    return saved
