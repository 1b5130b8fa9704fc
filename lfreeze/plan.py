"""The types that strategies receive and return: options, the plan of what trains, the controller."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from lfreeze.errors import StrategyError


@dataclass(frozen=True, kw_only=True)
class FreezeOptions:
    """Settings that a strategy's name does not determine (docs/decisions.md).

    Attributes:
        freeze_embeddings: ``"auto"`` (BOT and LoRA freeze them, the others do not), ``"yes"`` or ``"no"``.
        frozen_dtype: type in which the linear weights of frozen layers are stored; None keeps theirs.
        probe_steps: updates of the weights before an adaptive strategy selects its layers (§3.2).
        redraw_steps: updates after which LISA draws other layers.
        seed: for strategies that select at random.
        lora_targets: names of the modules that get an adapter; empty for ``q_proj`` and ``v_proj``, or where
            the layers lack one of them, those of peft's own table for the architecture.
        stack: the path of the layers in a model with several stacks, such as
            ``"model.language_model.layers"``.
        others: whether the parts with the other stacks train, such as an encoder or a vision tower:
            ``"freeze"`` or ``"train"``.
        example: keyword arguments of one forward pass, for a model that does not run on made-up ones;
            it shows in which order the parts run.

    Raises:
        StrategyError: a value is of the wrong type or outside its range.
    """

    freeze_embeddings: str = "auto"
    frozen_dtype: torch.dtype | None = None
    probe_steps: int = 5
    redraw_steps: int = 10
    seed: int = 0
    lora_rank: int = 8
    lora_alpha: int = 32
    lora_dropout: float = 0.1
    lora_targets: tuple[str, ...] = ()
    stack: str | None = None
    others: str = "freeze"
    example: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.freeze_embeddings not in ("auto", "yes", "no"):
            raise StrategyError(f"freeze_embeddings = {self.freeze_embeddings!r} is not one of auto, yes, no")
        if self.others not in ("freeze", "train"):
            raise StrategyError(f"others = {self.others!r} is not one of freeze, train")
        if self.example is not None and not isinstance(self.example, Mapping):
            raise StrategyError(
                f"example is a {type(self.example).__name__}, not a mapping of the forward method's arguments by name"
            )
        for name in ("probe_steps", "redraw_steps", "lora_rank", "lora_alpha"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise StrategyError(f"{name} = {value!r} is not a whole number above 0")
        targets = self.lora_targets
        if isinstance(targets, str) or not all(isinstance(t, str) for t in targets):
            raise StrategyError(f"lora_targets = {targets!r} is not a list of names")


def parse_options(options: Mapping[str, Any]) -> FreezeOptions:
    """Make ``FreezeOptions`` of keyword arguments.

    Raises:
        StrategyError: one of them is unknown or has an unusable value.
    """
    known = [f.name for f in dataclasses.fields(FreezeOptions)]
    for name in options:
        if name not in known:
            raise StrategyError(f"unknown option {name!r}; known are {', '.join(known)}")
    return FreezeOptions(**options)


class Controller(Protocol):
    """What a strategy does during training."""

    def step(self, *optimizers: torch.optim.Optimizer) -> FreezePlan | None:
        """Act on the step just taken; return the new plan if what trains has changed.

        Called after each step of the optimisers that train the model, whether or not it changed a weight.
        """


@runtime_checkable
class ResumableController(Controller, Protocol):
    """A controller whose state a checkpoint can hold, which ``FreezeCallback`` requires.

    It changes what trains once, after ``FreezeOptions.probe_steps`` updates, or after every ``redraw_steps``.

    Attributes:
        updates: steps so far that changed a weight.
    """

    updates: int

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """What the selection compares with, on the CPU, if anything; constant until the selection."""

    def resume(self, tensors: Mapping[str, torch.Tensor], updates: int) -> None:
        """Continue after a number of updates with the ``state_tensors`` of an earlier run."""


@dataclass(frozen=True)
class FreezePlan:
    """What trains and what does not; layers are counted from 0 at the input.

    Attributes:
        frozen_layers: layers of which no parameter trains, ascending.
        trainable_parameters: their number of elements; a quantised tensor counts as the one it stands for.
        backward_depth: layers that the backward pass crosses, counted from the output.
        head_parameters: those of ``trainable_parameters`` that are behind the layers and the final norm.
        head_tied: whether the output head's weight is that of the embeddings, and trains only with them.
        others_frozen: whether the parts with other stacks of layers are frozen; None where there are none.
        layer_changes: mean L2 norm of the weight change by layer, for adaptive strategies.
        adapted: names of the modules that have an adapter.
    """

    strategy: str
    n_layers: int
    frozen_layers: tuple[int, ...]
    embeddings_frozen: bool
    trainable_parameters: int
    total_parameters: int
    backward_depth: int
    head_parameters: int = 0
    head_tied: bool = False
    others_frozen: bool | None = None
    layer_changes: tuple[float, ...] | None = None
    adapted: tuple[str, ...] = ()

    def __str__(self) -> str:
        frozen = set(self.frozen_layers)
        marks = "".join("■" if i in frozen else "□" for i in range(self.n_layers))
        listed = ", ".join(str(i + 1) for i in self.frozen_layers) or "none"
        share = self.trainable_parameters / self.total_parameters
        lines = [
            f"{self.strategy}: {len(frozen)} of {self.n_layers} layers frozen",
            f"  layers      {marks}  input to output, ■ frozen, □ trains",
            f"  frozen      {listed}  (counted from 1)",
            f"  embeddings  {_state(self.embeddings_frozen)}",
            f"  head        {self._head()}",
            f"  parameters  {self.trainable_parameters:,} of {self.total_parameters:,} train ({share:.1%})",
            f"  backward    crosses {self.backward_depth} of {self.n_layers} layers",
        ]
        if self.adapted:
            lines.insert(3, f"  adapters    on {', '.join(self.adapted)}")
        if self.others_frozen is not None:
            lines.insert(
                -2, f"  others      {_state(self.others_frozen)}  (the parts with other stacks of layers)"
            )
        return "\n".join(lines)

    def _head(self) -> str:
        if self.head_tied:
            rest = f"; its other {self.head_parameters:,} parameters train" if self.head_parameters else ""
            return f"{_state(self.embeddings_frozen, 'trains')}, tied to the embeddings{rest}"
        if not self.head_parameters:
            return "none trains"
        share = self.head_parameters / self.trainable_parameters
        return f"trains, {self.head_parameters:,} parameters ({share:.1%} of those that train)"


def _state(frozen: bool, trains: str = "train") -> str:
    return "frozen" if frozen else trains
