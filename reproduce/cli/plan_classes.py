"""What ``reproduce plan`` says of the classes in which trials share a GPU, and of trials that do not fit it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from reproduce.plan.cost import TrialCost
from reproduce.plan.gpu_classes import fits, gpu_classes, per_gpu, share_of, words_of
from reproduce.plan.search_space import SearchSpace
from reproduce.terminal import PlainTable, say, show

_NO_FIT = "no fit"


def shown_share(trial: TrialCost) -> str:
    """A trial's share of the GPU, as ``1/3``; marked if it does not fit."""
    return words_of(share_of(per_gpu(trial.gpu_share))) if fits(trial) else _NO_FIT


def print_classes(space: SearchSpace, trials: Sequence[TrialCost], gpu_memory_gib: float) -> None:
    """Print one line for each class, in the order of running, and one for the trials that do not fit."""
    table = PlainTable(box=None, header_style="bold", pad_edge=False)
    table.add_column("GPU share", no_wrap=True)
    table.add_column("trials", justify="right", no_wrap=True)
    table.add_column("hours", justify="right", no_wrap=True)
    table.add_column("what")
    for share, members in _classes(space, trials):
        hours = sum(trial.seconds for trial in members) / 3600
        table.add_row(share, f"{len(members):,}", f"{hours:.2f}", _pairs(space, members))
    show(table)
    too_large = [trial for trial in trials if not fits(trial)]
    if too_large:
        # A share above 1 is the needed part of the assumed memory.
        least = min(trial.gpu_share for trial in too_large) * gpu_memory_gib
        say(
            f"{len(too_large):,} of {len(trials):,} trials do not fit a GPU with {gpu_memory_gib:g} GiB and need "
            f"{least:.1f} GiB or more: `reproduce run --what-fits` skips them."
        )


def classes_as_json(space: SearchSpace, trials: Iterable[TrialCost]) -> list[dict[str, Any]]:
    """The classes, in the order of running, for ``plan --json``."""
    return [
        {
            "per_gpu": each.per_gpu,
            "gpu_share": each.share,
            "trials": len(each.trials),
            "device_hours": sum(trial.seconds for trial in each.trials) / 3600,
        }
        for each in gpu_classes(trials, exclusive=space.exclusive)
    ]


def _classes(space: SearchSpace, trials: Sequence[TrialCost]) -> list[tuple[str, Sequence[TrialCost]]]:
    found: list[tuple[str, Sequence[TrialCost]]] = [
        (each.words, each.trials) for each in gpu_classes(trials, exclusive=space.exclusive)
    ]
    too_large = [trial for trial in trials if not fits(trial)]
    return [*found, (_NO_FIT, too_large)] if too_large else found


def _pairs(space: SearchSpace, trials: Iterable[TrialCost]) -> str:
    """``gemma-2b: ALL, LoRA; phi-2: all but BOT75``."""
    by_model: dict[str, dict[str, None]] = {}
    for trial in trials:
        by_model.setdefault(trial.factors.model, {})[trial.factors.strategy] = None
    return "; ".join(f"{model}: {_strategies(space, names)}" for model, names in by_model.items())


def _strategies(space: SearchSpace, names: Collection[str]) -> str:
    others = [name for name in space.strategies if name not in names]
    if len(names) <= len(others) or len(space.strategies) == 1:
        return ", ".join(names)
    return f"all but {', '.join(others)}" if others else "all strategies"
