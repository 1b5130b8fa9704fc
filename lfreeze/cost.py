"""Closed-form cost of a strategy on a model: FLOPs of a step, bytes of training.

A multiplication and an addition are two FLOPs. Each layer has three products of the same size per step:
forward, input gradient, weight gradient. Freezing saves the third; a layer below every trainable
parameter also saves the second and keeps no activations.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from lfreeze.model_shape import BYTES, COMPUTE_BYTES, mask_bytes
from lfreeze.shape import Shape


@dataclass(frozen=True)
class Cost:
    """Predicted cost of one optimiser step; the parts of the peak have the names of ``training.meter``.

    Attributes:
        backward_depth: layers that the backward pass crosses, counted from the output.
        weights_bytes: the static memory of the model.
        activation_bytes: what autograd keeps between the forward and the backward pass.
        beside_activations: allocated while all of them are held, for the gradients of a language model's logits.
        beside_gradients: allocated while all gradients are held: where the output head is tied to the embeddings,
            the second of the two gradients that are added.
        largest_gradient: bytes of the largest tensor that trains.
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
    beside_activations: int = 0
    beside_gradients: int = 0
    largest_gradient: int = 0
    accumulated: bool = False

    @property
    def training_bytes(self) -> int:
        """The peak above the weights.

        Activations shrink during the backward pass while gradients grow, so the peak is at one of
        its two ends, unless the gradients are there already.
        """
        forward_end = self.activation_bytes + self.beside_activations
        if self.accumulated:
            return self.optimiser_bytes + forward_end + self.gradient_bytes
        return self.optimiser_bytes + max(forward_end, self.gradient_bytes + self.beside_gradients)

    def step_time_ratio(self, reference: Cost) -> float:
        """Ideal step time relative to another cost: the ratio of their FLOPs."""
        flops = self.forward_flops + self.backward_flops
        return flops / (reference.forward_flops + reference.backward_flops)


@dataclass(frozen=True)
class Adapters:
    """Low-rank adapters on linear maps of the layers that are not frozen, as LoRA trains them.

    Attributes:
        targets: names of the linear maps that have an adapter each.
    """

    rank: int
    targets: Collection[str] = ("q_proj", "v_proj")

    def parameters(self, shape: Shape) -> int:
        """Parameters of one layer's adapters."""
        return self.rank * sum(a + b for name, a, b, _ in shape.linears if name in self.targets)


def evenly_spread(count: int, n_layers: int) -> tuple[int, ...]:
    """As many layers, counted from 0, at equal distances: they stand for layers that are not known yet."""
    return tuple((2 * i + 1) * n_layers // (2 * count) for i in range(count))


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
    vectors: str | None = None,
) -> Cost:
    """The cost of training with the given layers frozen, on full batches of ``length`` tokens.

    Args:
        frozen_layers: counted from 0 at the input.
        length: tokens of each example.
        adapters: freeze the whole base model, and train these in the layers that are not frozen, and the head.
        vectors: freeze every layer, and train its ``"biases"`` or ``"norms"``, those around the layers, and the head.
    """
    every = set(range(shape.n_layers))
    chosen = every - set(frozen_layers)
    frozen = every if adapters or vectors else set(frozen_layers)
    adapted = len(chosen) if adapters else 0
    adapter_parameters = adapters.parameters(shape) if adapters else 0
    head = shape.head_parameters(n_labels)
    trained = [layer for index, layer in enumerate(shape.layers) if index not in frozen]
    trainable = head + adapter_parameters * adapted + sum(layer.parameters for layer in trained)
    if vectors:
        trainable += shape.vector_parameters(vectors, embeddings=not embeddings_frozen)
    else:
        trainable += 0 if adapters else shape.norm_parameters
        trainable += 0 if embeddings_frozen else shape.embedding_parameters
    total = shape.parameters(n_labels) + adapter_parameters * adapted
    if vectors or not embeddings_frozen:
        depth = shape.n_layers
    else:
        depth = shape.n_layers - min(chosen, default=shape.n_layers)
    crossed = range(shape.n_layers - depth, shape.n_layers)

    tokens = batch_size * length
    products = 4 * tokens * length * shape.products_width
    adapter_flops = 2 * tokens * adapter_parameters
    head_flops = 2 * tokens * shape.head_weights(n_labels)
    embeddings_train = not (embeddings_frozen or vectors)
    head_trains = embeddings_train or not shape.head_tied
    weights = [2 * tokens * layer.weights for layer in shape.layers]
    forward = sum(weights) + shape.n_layers * products + adapted * adapter_flops + head_flops
    # Attention's two products have two gradients each; the head has both of its own unless it is frozen.
    backward = depth * 2 * products + adapted * 2 * adapter_flops + (1 + head_trains) * head_flops
    backward += sum(weights[i] for i in crossed) + sum(2 * tokens * layer.weights for layer in trained)
    if adapters:
        backward -= _first_layer_savings(shape, tokens, length, adapters)

    size = BYTES[precision]
    stored = total * size
    if frozen_dtype == "compute":
        saving = size - COMPUTE_BYTES[precision]
        stored -= sum(shape.layers[i].weights for i in frozen) * saving
    saved = shape.saved(batch_size, length, precision, frozen_dtype)
    kept_frozen = saved.frozen
    if vectors:
        kept_frozen = shape.saved_for_vectors(vectors, batch_size, length, precision, frozen_dtype)
    activations = saved.behind + sum(kept_frozen[i] if i in frozen else saved.trained[i] for i in crossed)
    activations += saved.norm if not adapters else 0
    activations += saved.front if embeddings_train else 0
    if adapters:
        # Dropout gives each adapter its own input and keeps its mask.
        kept = COMPUTE_BYTES[precision]
        mask = mask_bytes(shape.device, kept)
        inputs = [a for name, a, _, _ in shape.linears if name in adapters.targets]
        per_token = sum(a * (kept + mask) + adapters.rank * kept for a in inputs)
        activations += adapted * tokens * per_token - saved.parallel
    table, matrix = shape.largest_tensors
    head_gradient = shape.head_weights(n_labels) * head_trains
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
        beside_activations=_loss_bytes(saved.logits, head_gradient, precision) if saved.logits else 0,
        beside_gradients=head_gradient * size if shape.head_tied else 0,
        largest_gradient=max(table * embeddings_train, matrix * bool(trained), head_gradient) * size,
    )


def _loss_bytes(logits: int, head_gradient: int, precision: str) -> int:
    """Bytes at the start of a language model's backward pass, beside what autograd keeps.

    Kept are the log-probabilities, in float32. Their gradient and that of the logits have the same size; when the
    head's gradients are computed, only the logits' own is left of the three.

    Args:
        logits: their number of elements.
        head_gradient: elements of the head's matrix, if it trains.
    """
    compute, size = COMPUTE_BYTES[precision], BYTES[precision]
    # Autocast computes the gradient in its own type first.
    of_head = head_gradient * (size + (compute if compute != size else 0))
    return max(2 * 4 * logits, (compute - 4) * logits + of_head)


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
