"""The origin of the trials: distinct values of the provenance, input and recipe columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from lfreeze.recipe import field_types
from reproduce.report.formatting import NONE, memory_unit, number, plural
from reproduce.store.columns import ORIGINS
from reproduce.store.schema import TRIAL_COLUMNS

_MOST = 6  # distinct values that are listed
_HASH_DIGITS = 12

# What the paper does not specify: recipe field -> the question that its value answers.
_OPEN = {
    "freeze_embeddings": "Are the embeddings frozen with the bottom layers? “auto”: only for the kinds that specify it, such as BOT and LoRA",
    "padding": "Are batches padded to their longest example, to the maximum length, in micro-batches of similar length (“bucketed”), or not at all (“packed”)?",
    "prefix_cache": "Is the output of the frozen layers below the first that trains computed once per example: in the evaluation, in training too (“all”), or in every pass (“off”)?",
    "micro_batch_size": "For how many examples are gradients computed at once? 0: the whole batch",
    "pair_separator": "What stands between the two texts if the tokenizer puts nothing there, as Phi-2's? “auto”: a line break",
    "precision": "In which precision are matrix products computed and weights stored?",
    "frozen_dtype": "In which type are frozen weights stored: “same” as the trained ones, or the “compute” type?",
    "lora_targets": "Which projections get LoRA adapters?",
    "redraw_steps": "After how many updates does LISA, which is not in the paper, draw other layers?",
    "adam_beta1": "AdamW's first decay rate",
    "adam_beta2": "AdamW's second decay rate",
    "adam_epsilon": "AdamW's epsilon",
    "weight_decay": "Weight decay",
    "max_grad_norm": "Norm to which gradients are clipped",
    "warmup_steps": "Number of warm-up steps",
    "data_seed": "Seed of the choice of training examples: a number is shared by all trials, so that deviations over seeds exclude the choice; “trial”: the trial's own seed",
    "max_validation_examples": "How many validation examples are evaluated? 0: the whole split",
    "evaluate_every": "After how many steps is the model evaluated during training? 0: at its end only",
    "eval_batch_size": "Batch size of the evaluation",
    "timing_warmup_steps": "How many first steps are left out of the step time?",
    "cpu_threads": "Threads of each trial on a CPU",
}
# Decisions that no recipe field changes: title in docs/decisions.md -> question, answer.
_DECIDED = {
    "classifier": (
        "What turns the model into a classifier?",
        "transformers' sequence classifier: for the paper's models one linear layer without bias, always trained",
    ),
    "pooling": ("Which position does the head read?", "the last token that is not padding"),
    "head's initial values": (
        "With which deviation are the head's weights drawn?",
        "the architecture's own, from the trial's seed: 0.02, MiniCPM 0.1",
    ),
    "final norm": ("Is the norm after the last layer trained?", "yes; LoRA freezes it with the base model"),
    "dropout in frozen layers": (
        "Is dropout active in frozen layers?",
        "yes: the whole model is in training mode",
    ),
    "Figure 4's task": ("Which task? The caption says CB, the text MNLI", "both are drawn"),
    "Figure 5's percentages": (
        "Are they of total or of training memory?",
        "of training memory: the peak above the static model",
    ),
}


@dataclass(frozen=True)
class Fact:
    """One named value; several ``values`` if the trials differ."""

    name: str
    values: tuple[str, ...]


def origins(trials: pl.DataFrame, command: str | None) -> dict[str, list[Fact]]:
    """Facts by group, in the order of the page; empty without trials."""
    if not trials.height:
        return {"Run": [Fact("command", (command,))]} if command else {}
    groups = {"Run": _run(trials, command), "Inputs": _inputs(trials)}
    groups |= {title: [] for title in ORIGINS}
    for column in TRIAL_COLUMNS.values():
        if column.origin:
            title, name = column.origin
            groups[title].append(Fact(name, _distinct(trials, column.name)))
    groups["Recipe"] = [
        Fact(name, _distinct(trials, f"recipe_{name}")) for name in field_types() if name not in _OPEN
    ]
    return groups


def open_questions(trials: pl.DataFrame) -> list[tuple[str, str, tuple[str, ...]]]:
    """What the paper does not specify: name, question, the values used. Recipe fields come first."""
    if not trials.height:
        return []
    settings = [
        (name, question, _distinct(trials, f"recipe_{name}"))
        for name, question in _OPEN.items()
        if f"recipe_{name}" in trials.columns
    ]
    return settings + [(name, question, (answer,)) for name, (question, answer) in _DECIDED.items()]


def _run(trials: pl.DataFrame, command: str | None) -> list[Fact]:
    seeds = sorted(set(trials["seed"].drop_nulls()))
    started, finished = trials["started_at"].min(), trials["finished_at"].max()
    hours = (trials["total_seconds"].sum() or 0.0) / 3600
    facts = [Fact("command", (command,))] if command else []
    return [
        *facts,
        Fact("search space", _distinct(trials, "space")),
        Fact("artifact folder", _distinct(trials, "artifacts")),
        Fact("seeds", (", ".join(map(str, seeds)),)),
        Fact("first start, UTC", (_moment(started),)),
        Fact("last finish, UTC", (_moment(finished),)),
        Fact("total trial time", (f"{hours:.2f} h, summed over {plural(trials.height, 'trial')}",)),
    ]


def _inputs(trials: pl.DataFrame) -> list[Fact]:
    facts = []
    for kind, columns in (
        ("model", ("model_id", "model_revision", "weights_hash")),
        ("task", ("dataset_id", "dataset_revision", "dataset_fingerprint", "n_train", "n_validation")),
    ):
        for name in sorted(set(trials[kind])):
            rows = trials.filter(pl.col(kind) == name)
            texts = []
            for column in columns:
                values = [_text(column, v) for v in rows[column].drop_nulls().unique(maintain_order=True)]
                label = column.removeprefix("model_").removeprefix("dataset_").replace("_", " ")
                if values:
                    texts.append(f"{label} {' or '.join(values)}")
            facts.append(Fact(f"{kind} {name}", (", ".join(texts) or NONE,)))
    return facts


def _distinct(trials: pl.DataFrame, column: str) -> tuple[str, ...]:
    """The distinct values as text, the most frequent first; without any value, the reason."""
    if column not in trials.columns:
        return (NONE,)
    series = trials[column]
    # Ties keep the order of first occurrence.
    # In a recipe column, a null is a value of its own.
    known = series if column.startswith("recipe_") else series.drop_nulls()
    counts = known.to_frame("value").group_by("value", maintain_order=True).len()
    if not counts.height:
        return (_reason(trials, column),)
    values = counts.sort("len", descending=True, maintain_order=True)["value"]
    texts = list(dict.fromkeys(_text(column, value) for value in values.to_list()))
    return (*texts[: _MOST - 1], f"and {len(texts) - _MOST + 1} more") if len(texts) > _MOST else tuple(texts)


def _reason(trials: pl.DataFrame, column: str) -> str:
    reasons = trials.select(pl.col("null_reasons").explode()).unnest("null_reasons")
    given = reasons.filter(pl.col("column") == column)["reason"].drop_nulls()
    return f"{NONE} ({given[0]})" if given.len() else NONE


def _text(column: str, value: Any) -> str:
    if value is None:
        return str(TRIAL_COLUMNS[column].reason)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if column == "gpu_memory_bytes":
        unit, size = memory_unit(value)
        return f"{number(value, 1, 1 / size)} {unit}"
    if column.endswith(("hash", "fingerprint", "commit")):
        return str(value)[:_HASH_DIGITS]
    return (
        f"{value:g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    )


def _moment(value: object) -> str:
    return f"{value:%Y-%m-%d %H:%M}" if value is not None else NONE
