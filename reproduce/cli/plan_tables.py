"""The tables of ``reproduce plan``: its trials by model and strategy, or one by one."""

from __future__ import annotations

from collections.abc import Sequence

from reproduce.cli.plan_classes import shown_share
from reproduce.plan.cost import GIB, TrialCost
from reproduce.plan.spec import value_text
from reproduce.run.progress import clock
from reproduce.terminal import PlainTable, show

# Memory after an adaptive strategy has frozen its layers is in GiB too.
_NUMBERS = ("frozen", "static\nGiB", "training\nGiB", "after\nswitch", "host\nGiB", "GPU\nshare", "time")


def print_trials(trials: Sequence[TrialCost]) -> None:
    """Print one line for each trial."""
    grid = [name for name, _ in trials[0].factors.grid]
    table = _table("model", "task", "strategy", *grid, numbers=("seed", *_NUMBERS))
    for trial in trials:
        factors = trial.factors
        point = (value_text(value) for _, value in factors.grid)
        named = (factors.model, factors.task, factors.strategy, *point, str(factors.seed))
        table.add_row(*named, *_numbers([trial]))
    show(table)


def print_groups(trials: Sequence[TrialCost]) -> None:
    """Print one line for each model and strategy: the largest memory and share, and the sum of the times."""
    groups: dict[tuple[str, str], list[TrialCost]] = {}
    for trial in trials:
        groups.setdefault((trial.factors.model, trial.factors.strategy), []).append(trial)
    table = _table("model", "strategy", numbers=("trials", *_NUMBERS))
    for (model, strategy), members in groups.items():
        table.add_row(model, strategy, f"{len(members):,}", *_numbers(members))
    show(table)


def _table(*names: str, numbers: Sequence[str]) -> PlainTable:
    table = PlainTable(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        # A hub identifier may be longer than the table is wide.
        table.add_column(name, vertical="top", overflow="fold", no_wrap=name == "strategy")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _numbers(trials: Sequence[TrialCost]) -> list[str]:
    first = trials[0]
    switched = [t.after_switch_bytes for t in trials if t.after_switch_bytes]
    return [
        f"{first.frozen_layers}/{first.n_layers}",
        _gib(max(t.static_bytes for t in trials)),
        _gib(max(t.training_bytes for t in trials)),
        _gib(max(switched)) if switched else "",
        f"{max(t.host_bytes for t in trials) / GIB:.1f}",
        shown_share(max(trials, key=lambda t: t.gpu_share)),
        clock(sum(t.seconds for t in trials)),
    ]


def _gib(n_bytes: int) -> str:
    gib = n_bytes / GIB
    return f"{gib:.2f}" if gib >= 1 else f"{gib:.3f}"
