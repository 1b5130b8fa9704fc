"""Tiny tasks with the field names, label sets and training sizes of the paper's five and of four more of GLUE.

An example is a pure function of task, split and index: nothing is stored, and generating a few thousand
takes about a second. A hash of a pair's statements decides in which split it may appear, so that no pair is
in both, in any of the paper's tasks and whether or not the task turns the hypothesis into a question; for the four
others, a hash of the texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from numbers import Integral
from typing import Literal

from lfreeze.tiny.balance import weighted_forms
from lfreeze.tiny.draws import Draws, digest64
from lfreeze.tiny.forms import ANAPHORA, ATTITUDE, INSTANCE, PRONOUN, QUANTIFIED, Family
from lfreeze.tiny.glue import GLUE_TEXTS
from lfreeze.tiny.grammar import question, statement
from lfreeze.tiny.logic import Formula, Named, Quantified, Relation

SPLITS = ("train", "validation")
# One pair in eight is held out: never in a training split, and never in the pre-training text.
_HELD_OUT_ONE_IN = 8

# Shares of the relations in twelfths.
_THIRDS: Mapping[Relation, int] = {"entailment": 4, "neutral": 4, "contradiction": 4}
_ENTAILED_OR_NOT: Mapping[Relation, int] = {"entailment": 6, "neutral": 3, "contradiction": 3}
_ENTAILED_OR_OPEN: Mapping[Relation, int] = {"entailment": 6, "neutral": 6}
_OPEN_OR_NOT: Mapping[Relation, int] = {"entailment": 3, "neutral": 6, "contradiction": 3}


@dataclass(frozen=True)
class TinyTask:
    """A task: its text fields, its labels in index order, and the sizes of its splits."""

    name: str
    fields: tuple[str, ...]
    labels: tuple[str, ...]
    n_train: int
    n_validation: int

    def size(self, split: str) -> int:
        return self.n_train if split == "train" else self.n_validation


@dataclass(frozen=True)
class _Making:
    """How a task is generated: families with their percentages and relations, and the label of each relation."""

    families: tuple[tuple[Family, int, Mapping[Relation, int]], ...]
    label_of: Mapping[Relation, str]
    order: Literal["premise first", "question first"] = "premise first"

    def draw(self, draws: Draws, of_held_out: bool) -> tuple[Formula, Formula, Relation]:
        """A premise and hypothesis, from the held-out pairs or from the others, and their relation."""
        percentages = tuple(accumulate(percent for _, percent, _ in self.families))
        family, _, shares = self.families[draws.weighted(percentages)]
        relation = tuple(shares)[draws.weighted(tuple(accumulate(shares.values())))]
        forms = weighted_forms(family, shares)
        # The relation is drawn once, outside the loop: held-out pairs have the same shares as all others.
        while True:
            premise, hypothesis = forms.draw(relation, draws)
            if held_out(statement(premise), statement(hypothesis)) == of_held_out:
                return premise, hypothesis, relation


_SENTENCES = ("sentence1", "sentence2")
_RTE_LABELS = ("entailment", "not_entailment")
_ENTAILED: Mapping[Relation, str] = {
    "entailment": "entailment",
    "neutral": "not_entailment",
    "contradiction": "not_entailment",
}
_ENTAILED_AS_DIGIT: Mapping[Relation, str] = {"entailment": "1", "neutral": "0", "contradiction": "0"}
_ANSWERED: Mapping[Relation, str] = {
    "entailment": "entailment",
    "neutral": "not_entailment",
    "contradiction": "entailment",
}
_THREE_WAY: Mapping[Relation, str] = {name: name for name in _THIRDS}

_WITH_MAKING: tuple[tuple[TinyTask, _Making], ...] = (
    (
        TinyTask("tiny-rte", _SENTENCES, _RTE_LABELS, 2_490, 500),
        _Making(((QUANTIFIED, 100, _ENTAILED_OR_NOT),), _ENTAILED),
    ),
    (
        TinyTask("tiny-qnli", ("question", "sentence"), _RTE_LABELS, 104_743, 500),
        _Making(((QUANTIFIED, 100, _OPEN_OR_NOT),), _ANSWERED, "question first"),
    ),
    (
        TinyTask("tiny-wnli", _SENTENCES, ("0", "1"), 635, 500),
        _Making(((ANAPHORA, 80, _ENTAILED_OR_NOT), (PRONOUN, 20, _ENTAILED_OR_OPEN)), _ENTAILED_AS_DIGIT),
    ),
    (
        TinyTask("tiny-mnli", _SENTENCES, ("entailment", "neutral", "contradiction"), 392_702, 500),
        _Making(((QUANTIFIED, 60, _THIRDS), (INSTANCE, 40, _THIRDS)), _THREE_WAY),
    ),
    (
        TinyTask("tiny-cb", ("premise", "hypothesis"), ("entailment", "contradiction", "neutral"), 250, 500),
        _Making(((ATTITUDE, 100, _THIRDS),), _THREE_WAY),
    ),
)
_OF_GLUE = (
    TinyTask("tiny-sst2", ("sentence",), ("negative", "positive"), 67_349, 500),
    TinyTask("tiny-mrpc", _SENTENCES, ("not_equivalent", "equivalent"), 3_668, 500),
    TinyTask("tiny-qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), 363_846, 500),
    TinyTask("tiny-cola", ("sentence",), ("unacceptable", "acceptable"), 8_551, 500),
)
TINY_TASKS: dict[str, TinyTask] = {task.name: task for task in (*(t for t, _ in _WITH_MAKING), *_OF_GLUE)}
_MAKING: dict[str, _Making] = {task.name: making for task, making in _WITH_MAKING}


def held_out(premise: str, hypothesis: str) -> bool:
    """Whether a pair of statements is reserved for validation: not in training splits or pre-training text."""
    return digest64(f"{premise}\n{hypothesis}") % _HELD_OUT_ONE_IN == 0


def examples(task: str, split: str, indices: Sequence[int]) -> list[dict[str, str]]:
    """The examples at ``indices``: the task's text or two texts by field name, ``label``, and ``idx``.

    Raises:
        ValueError: no such task, split or index.
    """
    if task not in TINY_TASKS:
        raise ValueError(f"unknown tiny task {task!r}; known are {', '.join(TINY_TASKS)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r} of {task}; known are {', '.join(SPLITS)}")
    size = TINY_TASKS[task].size(split)
    for index in indices:
        if not isinstance(index, Integral) or not 0 <= index < size:
            raise ValueError(
                f"index {index!r} is outside {task}'s {split} split; accepted are 0 to {size - 1}"
            )
    return [_example(task, split, int(index)) for index in indices]


def _example(task: str, split: str, index: int) -> dict[str, str]:
    if task in GLUE_TEXTS:
        return _example_of_glue(TINY_TASKS[task], split, index)
    making, fields = _MAKING[task], TINY_TASKS[task].fields
    premise, hypothesis, relation = making.draw(Draws(task, split, index), split == "validation")
    texts = statement(premise), statement(hypothesis)
    if making.order == "question first":
        assert isinstance(hypothesis, Quantified | Named)
        texts = question(hypothesis), texts[0]
    return {fields[0]: texts[0], fields[1]: texts[1], "label": making.label_of[relation], "idx": str(index)}


def _example_of_glue(task: TinyTask, split: str, index: int) -> dict[str, str]:
    draws = Draws(task.name, split, index)
    label = draws.below(len(task.labels))
    # The label is drawn once, outside the loop: both splits have the same shares.
    while True:
        texts = GLUE_TEXTS[task.name](draws, label)
        if held_out(texts[0], texts[-1]) == (split == "validation"):
            return {
                **dict(zip(task.fields, texts, strict=True)),
                "label": task.labels[label],
                "idx": str(index),
            }
