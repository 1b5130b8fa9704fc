"""BitFit: the biases and the head trained, after Ben Zaken et al. 2022 (arXiv:2106.10199)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from lfreeze.errors import StrategyError
from lfreeze.strategy import Kind, Strategy, register

if TYPE_CHECKING:
    from torch import nn

    from lfreeze.plan import FreezeOptions, FreezePlan
    from lfreeze.recipe import Recipe
    from lfreeze.shape import Shape


@register
class Biases(Kind):
    """Freezes every parameter but the biases and the head; those of the embeddings, too, with ``freeze_embeddings``.

    Attributes:
        vectors: which parameters train, by a name of ``lfreeze.vectors``.
    """

    label = "BitFit"
    order = 90
    takes_ratio = False
    vectors: ClassVar[str] = "biases"

    def prepare(self, model: nn.Module, strategy: Strategy, options: FreezeOptions) -> FreezePlan:
        """Set what trains.

        Raises:
            StrategyError: the model's layers have no such parameter.
        """
        from lfreeze.blocks import model_parts
        from lfreeze.freezing import freeze_parameters
        from lfreeze.vectors import vectors_in

        parts = model_parts(model, options.stack)
        if not any(vectors_in(layer, self.vectors) for layer in parts.layers):
            raise self._lacking(f"the layers of {type(model).__name__} have")
        trained = {id(p) for p in vectors_in(model, self.vectors)} | {id(p) for p in parts.head}
        if self.embeddings_frozen(options.freeze_embeddings):
            trained -= {id(p) for p in parts.embeddings}
        others = {id(p) for p in parts.others}
        trained = trained | others if options.others == "train" else trained - others
        frozen = {id(p) for p in model.parameters()} - trained
        return freeze_parameters(model, strategy, frozen, options)

    def check_model(self, name: str, model: nn.Module, layers: Sequence[nn.Module], recipe: Recipe) -> None:
        """Check that the layers have such parameters.

        Raises:
            StrategyError: they have none.
        """
        from lfreeze.vectors import vectors_in

        if not any(vectors_in(layer, self.vectors) for layer in layers):
            raise self._lacking(f"the layers of the model {name} have")

    def cost_options(self, shape: Shape, recipe: Recipe) -> dict[str, Any]:
        """Every layer is frozen but for its vectors.

        Raises:
            StrategyError: the model has no such parameter.
        """
        if not shape.vector_parameters(self.vectors, embeddings=False):
            raise self._lacking(f"a model of type {shape.model_type} has")
        return {"frozen_layers": range(shape.n_layers), "vectors": self.vectors}

    def _lacking(self, holder: str) -> StrategyError:
        return StrategyError(
            f"strategy {self.label} trains {self.vectors}, and {holder} none: choose another strategy or model"
        )
