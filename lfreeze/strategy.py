"""Strategies as data: ``"BOT50"`` -> ``Strategy`` -> the layers it freezes of a model's n.

A kind of strategy (BOT, ADT-L, LoRA, ...) is one short file in ``lfreeze/kinds/``, or a class in another
package that names it in the entry-point group ``lfreeze.kinds``. Nothing here imports torch, so that
plans and reports can name strategies without loading it.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from lfreeze.cost import Cost, cost
from lfreeze.errors import StrategyError, shown
from lfreeze.plugins import class_path, import_modules, load_entry_points

if TYPE_CHECKING:
    from torch import nn

    from lfreeze.plan import Controller, FreezeOptions, FreezePlan
    from lfreeze.recipe import Recipe
    from lfreeze.shape import Shape

ENTRY_POINTS = "lfreeze.kinds"
# A ratio follows the label, so that a label ends with a letter.
_LABEL = re.compile(r"[A-Za-z]([A-Za-z0-9-]*[A-Za-z])?")
_RATIO = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,9})?")
_DECIMALS = 4  # a strategy's name keeps six significant digits


class Kind:
    """One kind of strategy: everything that distinguishes it from the others.

    A subclass is decorated with ``register``, sets ``label`` and overrides what it needs: a selection
    by position only ``select``; anything else ``prepare`` (what trains from the start), ``controller``
    (what changes during training), ``undo`` (the changes that ``prepare`` made to the model's
    structure) and the predicted costs.

    Attributes:
        label: the start of its strategies' names, such as ``BOT``.
        order: its place in lists and in the report; equal places are sorted by label.
        family: strategies of one family share a colour in the report; the label unless set. Not
            inherited, nor are ``paper_percents`` and ``baseline``.
        paper_percents: the ratios that the paper evaluates (§4.2): ``("",)`` for a kind without a
            ratio, ``()`` for a kind that is not in the paper.
        baseline: whether the report compares the other strategies with this one.
        takes_ratio: whether a ratio follows the label, as in ``BOT25``.
        freezes_embeddings: what ``freeze_embeddings = "auto"`` means for this kind.
        adaptive: whether it selects its layers during training: after a probe, unless it ``redraws``.
        redraws: whether it selects other layers after every ``redraw_steps`` updates.
        trains_base_weights: whether it trains weights of the model itself in the layers.
    """

    label: ClassVar[str]
    order: ClassVar[int] = 1000
    family: ClassVar[str]
    paper_percents: ClassVar[tuple[str, ...]] = ()
    baseline: ClassVar[bool] = False
    takes_ratio: ClassVar[bool] = True
    freezes_embeddings: ClassVar[bool] = False
    adaptive: ClassVar[bool] = False
    redraws: ClassVar[bool] = False
    trains_base_weights: ClassVar[bool] = True

    def select(self, n_layers: int, ratio: Fraction, seed: int) -> tuple[int, ...]:
        """The frozen layers, counted from 0 at the input, ascending."""
        return ()

    def embeddings_frozen(self, setting: str) -> bool:
        """Whether the embeddings are frozen under the option ``freeze_embeddings`` = ``setting``."""
        return setting == "yes" or (setting == "auto" and self.freezes_embeddings)

    def prepare(self, model: nn.Module, strategy: Strategy, options: FreezeOptions) -> FreezePlan | None:
        """Set what trains, before the optimiser is made; None leaves it to ``select``."""
        return None

    def controller(self, model: nn.Module, strategy: Strategy, options: FreezeOptions) -> Controller | None:
        """What acts after each optimiser step, if anything."""
        return None

    def undo(self, model: nn.Module) -> None:
        """Restore the structure that the model had before ``prepare``."""

    def check_model(self, name: str, model: nn.Module, layers: Sequence[nn.Module], recipe: Recipe) -> None:
        """Check what this kind needs of the model ``name`` beyond its number of layers.

        Args:
            model, layers: the model and its transformer layers, possibly on the meta device.

        Raises:
            StrategyError: the model or the environment lacks something.
        """

    def cost(self, shape: Shape, strategy: Strategy, recipe: Recipe, *, n_labels: int, length: int) -> Cost:
        """The predicted cost of one optimiser step, once the layers are selected.

        Args:
            length: tokens of each example in a batch.
        """
        frozen = strategy.frozen_layers(shape.n_layers)
        return self.layers_cost(shape, frozen, recipe, n_labels=n_labels, length=length)

    def peak_cost(
        self, shape: Shape, strategy: Strategy, recipe: Recipe, *, n_labels: int, length: int
    ) -> Cost:
        """The predicted cost of the phase that needs the most memory."""
        return self.cost(shape, strategy, recipe, n_labels=n_labels, length=length)

    def layers_cost(
        self, shape: Shape, frozen_layers: Collection[int], recipe: Recipe, *, n_labels: int, length: int
    ) -> Cost:
        """The predicted cost of one optimiser step with the given layers frozen, counted from 0."""
        own: dict[str, Any] = {"frozen_layers": frozen_layers, "frozen_dtype": recipe.frozen_dtype}
        return cost(
            shape,
            embeddings_frozen=self.embeddings_frozen(recipe.freeze_embeddings),
            n_labels=n_labels,
            batch_size=recipe.batch_size,
            length=length,
            precision=recipe.precision,
            **(own | self.cost_options(shape, recipe)),
        )

    def cost_options(self, shape: Shape, recipe: Recipe) -> dict[str, Any]:
        """Arguments of ``lfreeze.cost.cost`` that a kind sets; a StrategyError if the model lacks what trains."""
        return {}


_KindClass = TypeVar("_KindClass", bound=type[Kind])
# Registered classes by label in upper case, since names ignore case.
_registered: dict[str, type[Kind]] = {}


def register(cls: _KindClass) -> _KindClass:
    """Class decorator: make a kind's strategies available by name.

    Raises:
        StrategyError: the label is missing, malformed, or taken by another class.
    """
    label = vars(cls).get("label")
    if not isinstance(label, str) or not _LABEL.fullmatch(label):
        raise StrategyError(
            f"the label {label!r} of the strategy kind {class_path(cls)} is not made of letters, digits and "
            "hyphens with a letter at both ends"
        )
    other = _registered.get(label.upper())
    if other is not None and class_path(other) != class_path(cls):
        raise StrategyError(
            f"the strategy kind {class_path(cls)} has the label {label!r}, which {class_path(other)} has already: "
            "choose another label"
        )
    for name, value in (("family", label), ("paper_percents", ()), ("baseline", False)):
        if name not in vars(cls):
            setattr(cls, name, value)
    _registered[label.upper()] = cls
    kinds.cache_clear()
    return cls


@functools.cache
def kinds() -> dict[str, Kind]:
    """Every kind by its label, sorted by ``order``.

    They are those of ``lfreeze/kinds/``, those that installed packages name in the entry-point group
    ``lfreeze.kinds``, and those that the running program has registered.

    Raises:
        StrategyError: an entry point does not load or names no kind, or two kinds have one label.
    """
    import_modules("lfreeze.kinds")
    for name, target in load_entry_points(ENTRY_POINTS):
        _register_entry_point(name, target)
    ordered = sorted(_registered.values(), key=lambda cls: (cls.order, cls.label))
    return {cls.label: cls() for cls in ordered}


def paper_strategies() -> tuple[str, ...]:
    """The names of the paper's 17 strategies, in the order of its figures (§3, §4.2)."""
    return tuple(label + percent for label, kind in kinds().items() for percent in kind.paper_percents)


def _register_entry_point(name: str, target: object) -> None:
    """Register what an entry point names: a kind's class, or a module that registers kinds."""
    if isinstance(target, type) and issubclass(target, Kind):
        register(target)
    elif not inspect.ismodule(target) or not any(
        f"{cls.__module__}.".startswith(f"{target.__name__}.") for cls in _registered.values()
    ):
        raise StrategyError(
            f"{name} is neither a subclass of lfreeze.strategy.Kind nor a module that registers one"
        )


@dataclass(frozen=True)
class Strategy:
    """A kind and, for most kinds, the ratio of layers to freeze.

    Attributes:
        name: the paper's label, such as ``BOT25`` or ``ADT-L50``.
        kind: the label of its kind, such as ``BOT``.
        percent: the ratio as written in the name, or None.
    """

    name: str
    kind: str
    percent: str | None = None

    @classmethod
    def parse(cls, text: str) -> Strategy:
        """Parse a strategy's name; case is ignored.

        Raises:
            StrategyError: the kind is unknown, or the ratio is missing, superfluous, outside 0-100 or too precise.
        """
        text = text.strip()
        labels = {label.upper(): label for label in kinds()}
        for label in sorted(labels, key=len, reverse=True):
            # Other scripts have letters that are ASCII ones in upper case.
            if not text.isascii() or not text.upper().startswith(label):
                continue
            kind, rest = labels[label], text[len(label) :]
            if not kinds()[kind].takes_ratio:
                if rest:
                    break
                return cls(kind, kind)
            if not _RATIO.fullmatch(rest):
                break
            if not 0 < Fraction(rest) < 100 or len(rest.rstrip("0").partition(".")[2]) > _DECIMALS:
                raise StrategyError(
                    f"strategy {text!r}: the ratio {rest} is not above 0 and below 100 percent, with up to "
                    f"{_DECIMALS} decimal places"
                )
            percent = f"{float(rest):g}"
            return cls(kind + percent, kind, percent)
        accepted = ", ".join(label + ("<ratio>" if k.takes_ratio else "") for label, k in kinds().items())
        raise StrategyError(
            f"unknown strategy {shown(text)}; accepted are {accepted}, with the ratio in percent as in BOT25"
        )

    @property
    def ratio(self) -> Fraction:
        """The share of layers to freeze; 33 means one third exactly (docs/decisions.md)."""
        return Fraction(1, 3) if self.percent == "33" else Fraction(self.percent or 0) / 100

    @property
    def implementation(self) -> Kind:
        """What its kind does."""
        return kinds()[self.kind]

    def frozen_count(self, n_layers: int) -> int:
        """How many of ``n_layers`` are frozen: ratio x layers, rounded down.

        Raises:
            StrategyError: the ratio freezes no layer, or every layer.
        """
        if self.percent is None:
            return 0
        count = math.floor(self.ratio * n_layers)
        if n_layers < 2:
            raise StrategyError(f"strategy {self.name} needs a model with at least 2 layers, not {n_layers}")
        if not 0 < count < n_layers:
            raise StrategyError(
                f"strategy {self.name} freezes {'every' if count else 'no'} layer of a model with {n_layers} layers; "
                f"the ratio must freeze between 1 and {n_layers - 1} of them"
            )
        return count

    def frozen_layers(self, n_layers: int, seed: int = 0) -> tuple[int, ...]:
        """The frozen layers of a model with ``n_layers``, counted from 0 at the input, ascending.

        Raises:
            StrategyError: as ``frozen_count``, or the strategy selects its layers during training.
        """
        self.frozen_count(n_layers)
        if self.implementation.adaptive:
            raise StrategyError(f"strategy {self.name} selects its layers during training, not before")
        return tuple(sorted(self.implementation.select(n_layers, self.ratio, seed)))

    def cost(self, shape: Shape, recipe: Recipe, *, n_labels: int, length: int) -> Cost:
        """The predicted cost of one optimiser step under a recipe, once the layers are selected.

        Args:
            length: tokens of each example in a batch.
        """
        return self.implementation.cost(shape, self, recipe, n_labels=n_labels, length=length)

    def peak_cost(self, shape: Shape, recipe: Recipe, *, n_labels: int, length: int) -> Cost:
        """The predicted cost of the phase that needs the most memory."""
        return self.implementation.peak_cost(shape, self, recipe, n_labels=n_labels, length=length)

    def __str__(self) -> str:
        return self.name
