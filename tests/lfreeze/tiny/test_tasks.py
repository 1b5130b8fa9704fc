"""The five tiny tasks: contract, splits, balance, and no way round reading both texts."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from lfreeze.tiny.corpus import dialogue
from lfreeze.tiny.draws import Draws
from lfreeze.tiny.tasks import TINY_TASKS, examples, held_out

EXPECTED = {
    "tiny-rte": (("sentence1", "sentence2"), ("entailment", "not_entailment"), 2_490),
    "tiny-qnli": (("question", "sentence"), ("entailment", "not_entailment"), 104_743),
    "tiny-wnli": (("sentence1", "sentence2"), ("0", "1"), 635),
    "tiny-mnli": (("sentence1", "sentence2"), ("entailment", "neutral", "contradiction"), 392_702),
    "tiny-cb": (("premise", "hypothesis"), ("entailment", "contradiction", "neutral"), 250),
}
Row = dict[str, str]


def chosen(task: str, split: str = "train", n: int = 3_200) -> list[Row]:
    size = TINY_TASKS[task].size(split)
    return examples(task, split, random.Random(0).sample(range(size), min(n, size)))


def texts(task: str, row: Row) -> tuple[str, str]:
    first, second = TINY_TASKS[task].fields
    return row[first], row[second]


@pytest.mark.parametrize("name", EXPECTED)
def test_fields_labels_and_sizes(name: str) -> None:
    task = TINY_TASKS[name]
    assert (task.fields, task.labels, task.n_train) == EXPECTED[name]
    assert task.n_validation == 500
    last = examples(name, "train", [task.n_train - 1])[0]
    assert set(last) == {*task.fields, "label", "idx"}
    assert last["label"] in task.labels
    assert last["idx"] == str(task.n_train - 1)


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_depends_on_its_index_alone(name: str) -> None:
    together = examples(name, "validation", range(20))
    assert [examples(name, "validation", [i])[0] for i in reversed(range(20))] == together[::-1]


def test_examples_are_the_same_in_another_process_and_never_change() -> None:
    code = "from lfreeze.tiny.tasks import examples; print(examples('tiny-cb', 'train', [0, 249]))"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert runs == {str(examples("tiny-cb", "train", [0, 249]))}


def test_the_tasks_need_no_torch() -> None:
    code = "import sys, lfreeze.tiny.tasks; print({'torch', 'transformers'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize("name", EXPECTED)
def test_no_pair_is_in_both_splits(name: str) -> None:
    train = {texts(name, row) for row in chosen(name, n=4_000)}
    assert not train & {texts(name, row) for row in chosen(name, "validation")}


def test_no_validation_pair_of_any_task_is_in_the_pretraining_text_or_another_tasks_training_split() -> None:
    kept = {texts(name, row) for name in EXPECTED for row in chosen(name, "validation")}
    trained = {texts(name, row) for name in EXPECTED for row in chosen(name)}
    draws = Draws("pretraining", 1)
    documents = [dialogue(draws) for _ in range(10_000)]
    assert not kept & {(first, second) for first, second, _ in documents}
    assert not kept & trained
    assert all(held_out(*pair) for name in ("tiny-rte", "tiny-cb") for pair in kept_pairs(name))


def kept_pairs(name: str) -> list[tuple[str, str]]:
    return [texts(name, row) for row in chosen(name, "validation")]


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_labels_are_balanced(name: str, split: str) -> None:
    rows = chosen(name, split)
    share = max(Counter(row["label"] for row in rows).values()) / len(rows)
    assert share <= (0.40 if len(TINY_TASKS[name].labels) == 3 else 0.55)


def first_words(first: str, second: str) -> list[str]:
    return first.split()


def second_words(first: str, second: str) -> list[str]:
    return second.split()


def overlap(first: str, second: str) -> list[str]:
    present, needed = set(first.split()), set(second.split())
    return [f"shared {len(present & needed)}", f"new {len(needed - present)}", f"length {len(first.split())}"]


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("features", [first_words, second_words, overlap])
def test_a_bag_of_words_does_not_predict_the_label(
    name: str, features: Callable[[str, str], list[str]]
) -> None:
    train, validation = chosen(name), chosen(name, "validation")
    totals, counts = Counter[str](), Counter[tuple[str, str]]()
    for row in train:
        totals[row["label"]] += 1
        counts.update((row["label"], word) for word in set(features(*texts(name, row))))

    def guess(row: Row) -> str:
        words = set(features(*texts(name, row)))
        return max(
            totals,
            key=lambda label: (
                math.log(totals[label])
                + sum(math.log((counts[label, word] + 1) / (totals[label] + 2)) for word in words)
            ),
        )

    accuracy = sum(guess(row) == row["label"] for row in validation) / len(validation)
    assert accuracy <= 1 / len(TINY_TASKS[name].labels) + 0.10


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (("rte", "train", [0]), r"unknown tiny task 'rte'; known are tiny-rte, .*tiny-cb"),
        (("tiny-rte", "test", [0]), r"unknown split 'test' of tiny-rte; known are train, validation"),
        (
            ("tiny-rte", "train", [2_490]),
            r"index 2490 is outside tiny-rte's train split; accepted are 0 to 2489",
        ),
        (("tiny-cb", "validation", [-1]), r"index -1 is outside"),
        (("tiny-cb", "validation", [1.5]), r"index 1.5 is outside"),
    ],
)
def test_bad_input_is_named(call: tuple[str, str, list[Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        examples(*call)
