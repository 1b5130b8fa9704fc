"""Strategies as data: ``"BOT50"`` -> ``Strategy`` -> the layers it freezes of a model's n.

Nothing here imports torch, so that plans and reports can name strategies without loading it.
A kind of strategy (BOT, ADT-L, LoRA, ...) is one short file in ``lfreeze/kinds/``.
"""

from __future__ import annotations

import functools
import importlib
import math
import pkgutil
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

from lfreeze.errors import StrategyError

if TYPE_CHECKING:
    from torch import nn

    from lfreeze.plan import Controller, FreezeOptions, FreezePlan

# The paper's 17 strategies, in the order of its figures (§3, §4.2).
PAPER_STRATEGIES = (
    "ALL",
    "LoRA",
    *(f"INT{ratio}" for ratio in (25, 33, 50)),
    *(f"{kind}{ratio}" for kind in ("BOT", "TOP", "ADT-L", "ADT-H") for ratio in (25, 50, 75)),
)


class Kind:
    """One kind of strategy: which layers stay frozen, and how training is prepared for it.

    A subclass in a module of ``lfreeze/kinds/`` is found by itself. It sets ``label`` and
    overrides what it needs: a static selection only ``select``; anything else ``prepare`` (what
    trains from the start), ``controller`` (what changes during training) and ``undo`` (the
    changes that ``prepare`` made to the model's structure).
    """

    label: ClassVar[str]
    takes_ratio: ClassVar[bool] = True
    # What freeze_embeddings = "auto" means for this kind.
    freezes_embeddings: ClassVar[bool] = False
    # Whether the layers are known only once training has begun.
    adaptive: ClassVar[bool] = False

    def select(self, n_layers: int, ratio: Fraction, seed: int) -> tuple[int, ...]:
        """The frozen layers, counted from 0 at the input, ascending."""
        return ()

    def prepare(self, model: nn.Module, strategy: Strategy, options: FreezeOptions) -> FreezePlan | None:
        """Set what trains, before the optimiser is made; None leaves it to ``select``."""
        return None

    def controller(self, model: nn.Module, strategy: Strategy, options: FreezeOptions) -> Controller | None:
        """What acts after each optimiser step, if anything."""
        return None

    def undo(self, model: nn.Module) -> None:
        """Give the model back the structure it had before ``prepare``."""


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
        """Read a strategy's name; upper and lower case are the same.

        Raises:
            StrategyError: an unknown kind, a missing or superfluous ratio, or one outside 0-100.
        """
        text = text.strip()
        labels = {label.upper(): label for label in kinds()}
        for label in sorted(labels, key=len, reverse=True):
            if not text.upper().startswith(label):
                continue
            kind, rest = labels[label], text[len(label) :]
            if not kinds()[kind].takes_ratio:
                if rest:
                    break
                return cls(kind, kind)
            if not re.fullmatch(r"-?\d+(\.\d+)?", rest):
                break
            if not 0 < Fraction(rest) < 100:
                raise StrategyError(
                    f"strategy {text!r}: the ratio {rest} is not above 0 and below 100 percent"
                )
            percent = f"{float(rest):g}"
            return cls(kind + percent, kind, percent)
        accepted = ", ".join(label + ("<ratio>" if k.takes_ratio else "") for label, k in kinds().items())
        raise StrategyError(
            f"unknown strategy {text!r}; accepted are {accepted}, the ratio in percent as in BOT25"
        )

    @property
    def ratio(self) -> Fraction:
        """The share of layers to freeze; 33 means one third exactly (README, "What the paper leaves open")."""
        if self.percent is None:
            return Fraction(0)
        return Fraction(1, 3) if self.percent == "33" else Fraction(self.percent) / 100

    @property
    def implementation(self) -> Kind:
        return kinds()[self.kind]

    def frozen_count(self, n_layers: int) -> int:
        """How many of ``n_layers`` stay frozen: ratio x layers, rounded down.

        Raises:
            StrategyError: a ratio that freezes no layer, or every layer.
        """
        if self.percent is None:
            return 0
        count = math.floor(self.ratio * n_layers)
        if not 0 < count < n_layers:
            what = "no layer" if count == 0 else "every layer"
            accepted = f"the ratio must freeze between 1 and {n_layers - 1} of them"
            if n_layers < 2:
                what, accepted = "a part", "that takes at least 2 layers"
            raise StrategyError(
                f"strategy {self.name} freezes {what} of a model with {n_layers} "
                f"{'layer' if n_layers == 1 else 'layers'}; {accepted}"
            )
        return count

    def frozen_layers(self, n_layers: int, seed: int = 0) -> tuple[int, ...]:
        """The frozen layers of a model with ``n_layers``, counted from 0 at the input, ascending.

        Raises:
            StrategyError: as ``frozen_count``; or the strategy selects its layers during training.
        """
        self.frozen_count(n_layers)
        if self.implementation.adaptive:
            raise StrategyError(f"strategy {self.name} selects its layers during training, not before")
        return tuple(sorted(self.implementation.select(n_layers, self.ratio, seed)))

    def __str__(self) -> str:
        return self.name


@functools.cache
def kinds() -> dict[str, Kind]:
    """Every kind by its label: those of ``lfreeze/kinds/`` in the order of their files."""
    package = importlib.import_module("lfreeze.kinds")
    for module in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
        importlib.import_module(f"lfreeze.kinds.{module}")
    found = {cls.label: cls() for cls in _subclasses(Kind) if hasattr(cls, "label")}
    paper = [label for label in _PAPER_KINDS if label in found]
    return {label: found[label] for label in paper + [k for k in found if k not in paper]}


_PAPER_KINDS = ("ALL", "LoRA", "INT", "BOT", "TOP", "ADT-L", "ADT-H")


def _subclasses(cls: type[Any]) -> list[type[Any]]:
    return [found for sub in cls.__subclasses__() for found in (sub, *_subclasses(sub))]
