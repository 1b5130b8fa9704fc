"""What the closed forms of ``lfreeze.cost`` need to know of a model, however it is found out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class LayerSizes:
    """One layer: its parameters, and the elements of the weight matrices that each token meets."""

    parameters: int
    weights: int


@dataclass(frozen=True)
class Saved:
    """Bytes that autograd keeps between the forward and the backward pass.

    Attributes:
        trained, frozen: of each layer that the backward pass crosses, if it trains and if it is frozen.
        front: of the embeddings, if they train.
        behind: of the final norm and the head.
        norm: for the final norm's own gradient.
        parallel: what the first layer does not keep if nothing in front of it and of its MLP trains.
        logits: elements of the logits of a language model, of which transformers computes the loss in float32.
    """

    trained: tuple[int, ...]
    frozen: tuple[int, ...]
    front: int
    behind: int
    norm: int = 0
    parallel: int = 0
    logits: int = 0


class Shape(Protocol):
    """What the closed forms of ``lfreeze.cost`` need to know of a sequence classifier or a language model.

    Attributes:
        model_type: transformers' name of the architecture.
        device: type of the device that it trains on.
        linears: of one layer, each linear map's (name, inputs, outputs, bias).
        products_width: heads times their size, the width of attention's two products.
        parallel: whether attention and MLP read the same norm and add to the same residual.
        head_tied: whether the head's matrix is that of the embeddings.
        largest_tensors: elements of the largest tensor of the embeddings, and of that of the layers.
        max_positions: tokens for which there are positions; None where the configuration declares no limit.
    """

    @property
    def model_type(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def n_layers(self) -> int: ...
    @property
    def layers(self) -> tuple[LayerSizes, ...]: ...
    @property
    def linears(self) -> tuple[tuple[str, int, int, bool], ...]: ...
    @property
    def products_width(self) -> int: ...
    @property
    def parallel(self) -> bool: ...
    @property
    def embedding_parameters(self) -> int: ...
    @property
    def norm_parameters(self) -> int: ...
    @property
    def head_tied(self) -> bool: ...
    @property
    def largest_tensors(self) -> tuple[int, int]: ...
    @property
    def max_positions(self) -> int | None: ...

    def __hash__(self) -> int: ...

    def head_parameters(self, n_labels: int) -> int:
        """Parameters of the head, without a matrix that is tied to the embeddings."""

    def head_weights(self, n_labels: int) -> int:
        """Elements of the head's matrices."""

    def parameters(self, n_labels: int) -> int:
        """All parameters of the classifier."""

    def saved(self, batch_size: int, length: int, precision: str, frozen_dtype: str) -> Saved:
        """What autograd keeps of one batch."""

    def vector_parameters(self, which: str, *, embeddings: bool) -> int:
        """The ``"biases"``, or the parameters of ``"norms"``, of the layers and behind them.

        Args:
            embeddings: whether those in front of the layers count too.
        """

    def saved_for_vectors(
        self, which: str, batch_size: int, length: int, precision: str, frozen_dtype: str
    ) -> tuple[int, ...]:
        """Bytes that autograd keeps of one batch in each layer, if only its biases or norms train."""
