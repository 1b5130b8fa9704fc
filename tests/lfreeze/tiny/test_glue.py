"""The four tiny tasks in the manner of GLUE's: balance, splits, and what a label means."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from lfreeze.data.tasks import TASKS
from lfreeze.tiny.lexicon import NAMES
from lfreeze.tiny.tasks import SPLITS, TINY_TASKS, examples

NAMES_OF_TASKS = ("sst2", "mrpc", "qqp", "cola")


def rows(name: str, split: str, n: int = 500) -> list[dict[str, str]]:
    size = TINY_TASKS[f"tiny-{name}"].size(split)
    return examples(f"tiny-{name}", split, random.Random(0).sample(range(size), n))


@pytest.mark.parametrize("name", NAMES_OF_TASKS)
def test_fields_labels_and_training_sizes_are_those_of_glue(name: str) -> None:
    tiny, real = TASKS[f"tiny-{name}"], TASKS[name]
    assert (tiny.fields, tiny.labels, tiny.n_train) == (real.fields, real.labels, real.n_train)
    assert tiny.tiny
    assert real.hosted is not None
    assert {*rows(name, "train", 1)[0]} == {*tiny.fields, "label", "idx"}


@pytest.mark.parametrize("name", NAMES_OF_TASKS)
def test_labels_are_balanced_and_no_text_is_in_both_splits(name: str) -> None:
    fields = TINY_TASKS[f"tiny-{name}"].fields
    texts = []
    for split in SPLITS:
        drawn = rows(name, split)
        assert max(Counter(row["label"] for row in drawn).values()) <= 0.57 * len(drawn)
        texts.append({tuple(row[field] for field in fields) for row in drawn})
    assert not texts[0] & texts[1]


def clauses(text: str) -> set[tuple[str, ...]]:
    """Each clause as its words, without order."""
    return {tuple(sorted(clause.split())) for clause in text.rstrip(" .?").split(" and ")}


def test_labels_mean_what_they_say() -> None:
    for row in rows("sst2", "train"):
        last = row["sentence"].split(" and ")[1]
        assert row["label"] == ("negative" if " not " in last else "positive")
    acceptable = {row["sentence"] for row in rows("cola", "train", 4000) if row["label"] == "acceptable"}
    unacceptable = {row["sentence"] for row in rows("cola", "train", 4000) if row["label"] == "unacceptable"}
    assert not acceptable & unacceptable
    for text in acceptable:
        assert all(clause.split()[0] in NAMES for clause in text.split(" and ")), text
    for name, same in (("mrpc", "equivalent"), ("qqp", "duplicate")):
        first, second = TINY_TASKS[f"tiny-{name}"].fields
        for row in rows(name, "train"):
            assert (clauses(row[first]) == clauses(row[second])) == (row["label"] == same), row
            assert row[first] != row[second]
