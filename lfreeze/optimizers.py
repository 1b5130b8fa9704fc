"""What freezing needs of optimisers: what they hold, whether they moved a weight, and what they must drop."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from lfreeze.errors import StrategyError

# Elements of each tensor that are compared to see a change; an update moves nearly all of them.
_SAMPLE = 64
# Optimisers that are made from named parameters list the names too.
_LISTS = ("params", "param_names")


def require_held(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    strategy: str,
    elsewhere: ChangeDetector | None = None,
    later: Collection[nn.Parameter] = (),
) -> None:
    """Check that the optimisers together hold every parameter that trains.

    They may hold more: frozen parameters have no gradient, which every optimiser skips, and a loss may
    have parameters of its own.

    Args:
        elsewhere: accept that another optimiser holds the rest, if any of the rest has changed.
        later: what may be frozen now, but will train.

    Raises:
        StrategyError: a parameter that trains is missing; the message names the first ones.
    """
    held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    wanted = {id(p) for p in model.parameters() if p.requires_grad} | {id(p) for p in later}
    missing = [name for name, p in model.named_parameters() if id(p) in wanted - held]
    if missing and not (elsewhere and elsewhere.changed(missing)):
        listed = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise StrategyError(
            f"the optimiser lacks {len(missing)} of the parameters that {strategy} trains ({listed}): create it "
            "after freezing, from model.parameters()"
        )


def require_separable(optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Refuse optimisers that keep one flat state for all parameters, from which none can be dropped.

    Raises:
        StrategyError: it names the optimiser's class.
    """
    for optimizer in optimizers:
        if hasattr(_innermost(optimizer), "_gather_flat_grad"):
            raise StrategyError(
                f"{type(_innermost(optimizer)).__name__} keeps one state for all parameters together, so that layers "
                "cannot be frozen during training: use an optimiser with a state for each, such as AdamW"
            )


def drop_frozen(optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Remove frozen parameters from optimisers; those that stay keep their moments.

    They are removed with their state and gradient, so that no later step can move them. The lists are
    edited in place, since an optimiser may keep a second reference.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            trains = [p.requires_grad for p in group["params"]]
            for key in _LISTS:
                if key in group:
                    group[key][:] = itertools.compress(group[key], trains)
        for parameter in [p for p in optimizer.state if not p.requires_grad]:
            parameter.grad = None
            del optimizer.state[parameter]


class ParameterLists:
    """What optimisers list at this moment, to list it again after ``drop_frozen``."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]):
        self._lists = [
            (group[key], list(group[key]))
            for optimizer in optimizers
            for group in optimizer.param_groups
            for key in _LISTS
            if key in group
        ]

    def restore(self) -> None:
        """Put every parameter back in its place."""
        for listed, all_of_them in self._lists:
            listed[:] = all_of_them


@contextlib.contextmanager
def evaluation_weights(optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[None]:
    """Inside, the weights are those that evaluation uses: schedule-free optimisers train at another point."""
    switchable: list[Any] = [
        optimizer
        for optimizer in optimizers
        if callable(getattr(optimizer, "eval", None))
        and callable(getattr(optimizer, "train", None))
        # Absent in optimisers without such a point.
        and any(group.get("train_mode", False) for group in optimizer.param_groups)
    ]
    for optimizer in switchable:
        optimizer.eval()
    try:
        yield
    finally:
        for optimizer in switchable:
            optimizer.train()


class ChangeDetector:
    """Whether weights have changed since the last look, on a sample of every tensor.

    The values are compared, since neither a call of ``step`` nor a version counter tells: accumulation
    and loss scalers skip updates, a fused optimiser writes the old values then, and ``.data`` is not
    counted.
    """

    def __init__(self, model: nn.Module, *, trainable: bool = True):
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad is trainable}
        self._last = self._sample(self._parameters)

    def changed(self, names: Collection[str] | None = None) -> bool:
        """Compare with the last look; a look at everything is the next one's reference."""
        now = self._sample(names or self._parameters)
        changed = any(not torch.equal(now[name], self._last[name]) for name in now)
        if names is None:
            self._last = now
        return changed

    @torch.no_grad()
    def _sample(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """Elements of each tensor, on the CPU: one transfer for each device and type."""
        slices: dict[Any, dict[str, torch.Tensor]] = {}
        for name in names:
            flat = self._parameters[name].detach().reshape(-1)
            stride = max(1, flat.numel() // _SAMPLE)
            slices.setdefault((flat.device, flat.dtype), {})[name] = flat[::stride][:_SAMPLE]
        sample: dict[str, torch.Tensor] = {}
        for group in slices.values():
            parts = torch.cat(list(group.values())).cpu().split([part.numel() for part in group.values()])
            sample |= dict(zip(group, parts, strict=True))
        return sample


def _innermost(optimizer: Any) -> Any:
    """The optimiser inside wrappers such as Accelerate's."""
    inner = getattr(optimizer, "optimizer", None)
    return _innermost(inner) if isinstance(inner, torch.optim.Optimizer) else optimizer
