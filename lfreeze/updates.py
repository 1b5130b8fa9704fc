"""The updates of a training: steps that changed a weight, counted for what freezes layers during training."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import nn

from lfreeze.errors import StrategyError
from lfreeze.optimizers import ChangeDetector, require_separable
from lfreeze.strategy import Strategy

# More than micro-batches are accumulated for one update, or steps skipped by a loss scaler.
_CALLS_WITHOUT_UPDATE = 200


class Updates:
    """Counts updates, and checks that the optimisers can drop parameters and do not move frozen ones.

    Attributes:
        count: steps so far that changed a weight.
    """

    def __init__(self, model: nn.Module, strategy: Strategy):
        self._model, self._strategy = model, strategy
        self._trained = ChangeDetector(model)
        self._frozen: ChangeDetector | None = None
        self._calls = self.count = 0

    def resume(self, count: int) -> None:
        """Continue after a number of updates."""
        self._calls = self.count = count

    def take(self, optimizers: Sequence[torch.optim.Optimizer]) -> bool:
        """Note a step of the optimisers; whether it changed a weight.

        Raises:
            StrategyError: no weight changes, an optimiser keeps one state for all parameters, or training runs in
                several processes.
        """
        require_separable(optimizers)
        _require_one_process(self._strategy)
        self._calls += 1
        if not self._trained.changed():
            self._note_empty_step()
            return False
        self.count += 1
        return True

    def watch(self, model: nn.Module) -> None:
        """What trains has changed: check with ``require_unmoved`` after the next step that nothing frozen moved."""
        self._trained, self._frozen = ChangeDetector(model), ChangeDetector(model, trainable=False)

    def require_unmoved(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Check the first step after a change of what trains.

        Raises:
            StrategyError: it moved frozen weights; the message names the optimisers.
        """
        frozen, self._frozen = self._frozen, None
        if frozen is not None and frozen.changed():
            names = ", ".join(type(optimizer).__name__ for optimizer in optimizers)
            raise StrategyError(f"{names} has moved frozen weights: use another optimiser, such as AdamW")

    def _note_empty_step(self) -> None:
        if self.count == 0 and self._calls >= _CALLS_WITHOUT_UPDATE:
            raise StrategyError(
                f"no weight has changed in {self._calls} calls of step, so {self._strategy.name} cannot select "
                "layers: call step(optimizer) after each optimizer.step(), with a learning rate above 0"
            )
        if self._calls - self.count == 1:
            warnings.warn(
                f"{self._strategy.name}: a step changed no weight (gradient accumulation, a loss scaler, or a "
                "learning rate of 0); it counts the steps that do",
                stacklevel=5,
            )


def _require_one_process(strategy: Strategy) -> None:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        raise StrategyError(
            f"strategy {strategy.name} can freeze in one process only, "
            f"not in {distributed.get_world_size()}: choose a strategy that freezes before training"
        )
