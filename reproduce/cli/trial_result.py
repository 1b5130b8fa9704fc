"""What ``reproduce trial`` says of a trial that ran."""

from __future__ import annotations

from reproduce.run.progress import outcome
from reproduce.store.trial_row import TrialRow
from reproduce.terminal import say

_MIB = 2**20


def print_result(row: TrialRow) -> None:
    """Print accuracy, step time, memory, layers and proof of a trial, or why it failed."""
    name = f"{row.strategy} on {row.model}, {row.task}, seed {row.seed}"
    if row.status != "ok":
        say(f"{name}: {row.status}: {row.error_type}: {row.error_message}")
        return
    say(f"{name}: {outcome(row)}, majority class {row.majority_accuracy:.3f}")
    for label, text in (
        ("step time", _step_time(row)),
        ("memory", _memory(row)),
        ("layers", _layers(row)),
        ("proof", _proof(row)),
    ):
        say(f"  {label:9}  {text}", indent=11)


def _step_time(row: TrialRow) -> str:
    if not row.n_timed_steps:
        return "no step was timed: the recipe has too few"
    middle, low, high = (
        1e3 * (seconds or 0.0)
        for seconds in (row.step_seconds_median, row.step_seconds_q25, row.step_seconds_q75)
    )
    return f"{middle:.1f} ms, the median of {row.n_timed_steps} steps (quartiles {low:.1f} and {high:.1f})"


def _memory(row: TrialRow) -> str:
    training, static = ((n_bytes or 0) / _MIB for n_bytes in (row.training_bytes, row.static_bytes))
    return f"{training:,.1f} MiB to train + {static:,.1f} MiB of weights, by {row.memory_method}"


def _layers(row: TrialRow) -> str:
    frozen = row.frozen_layers or ()
    marks = "".join("■" if layer in frozen else "□" for layer in range(row.n_layers or 0))
    share = (row.trainable_parameters or 0) / (row.total_parameters or 1)
    return f"{marks}  {len(frozen)} of {row.n_layers} frozen (■), {share:.1%} of the parameters train"


def _proof(row: TrialRow) -> str:
    checks = {
        "frozen weights kept every bit": row.frozen_unchanged,
        "all others got gradients": row.every_trainable_got_gradient,
        "the optimiser holds what trains": row.optimiser_holds_trainable,
        f"backward pass: {row.planned_backward_depth} layers": row.backward_depth
        == row.planned_backward_depth,
    }
    failed = [words for words, holds in checks.items() if not holds]
    return f"FAILED: not true: {'; '.join(failed)}" if failed else "; ".join(checks)
