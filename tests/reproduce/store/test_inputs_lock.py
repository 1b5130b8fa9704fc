"""The input lock: what it holds, what it refuses, and what it cannot read."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

import pytest

from reproduce.plan.inputs import SpaceInputs, find_inputs
from reproduce.plan.search_space import load_space
from reproduce.store.artifacts import ArtifactError
from reproduce.store.inputs_lock import check_lock, write_lock

RTE = ["index\tsentence1\tsentence2\tlabel", *(f"{i}\ta {i}\tb\tentailment" for i in range(9))]


def write_rte(folder: Path, lines: list[str]) -> None:
    (folder / "RTE").mkdir(parents=True, exist_ok=True)
    for name in ("train.tsv", "dev.tsv"):
        (folder / "RTE" / name).write_text("\n".join(lines) + "\n")


def inputs_of(data: Path, **overrides: str) -> SpaceInputs:
    return find_inputs(load_space("embedded", {"tasks": ["rte", "tiny-cb"]}, overrides), data)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_rte(tmp_path / "data", RTE)
    return tmp_path / "data"


def test_it_holds_hashes_and_row_counts(tmp_path: Path, data: Path) -> None:
    write_lock(tmp_path, inputs_of(data))
    lock = tomllib.loads((tmp_path / "inputs.lock.toml").read_text())
    rte = lock["tasks"]["rte"]
    assert (rte["n_train"], rte["n_validation"]) == (9, 9)
    expected = hashlib.sha256((data / "RTE" / "train.tsv").read_bytes()).hexdigest()
    assert rte["files"]["RTE/train.tsv"] == expected
    assert set(lock["models"]["tiny-gemma"]["files"]) >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert str(tmp_path) not in (tmp_path / "inputs.lock.toml").read_text()


def test_changed_texts_are_refused_and_a_smaller_choice_of_them_is_not(tmp_path: Path, data: Path) -> None:
    write_lock(tmp_path, inputs_of(data))
    check_lock(tmp_path, inputs_of(data, max_train_examples="4", data_seed="3"))
    write_rte(data, [line.replace("a 7", "a seven") for line in RTE])
    with pytest.raises(
        ArtifactError, match=r"the task rte differs from .*inputs\.lock\.toml: .*--accept-inputs"
    ):
        check_lock(tmp_path, inputs_of(data))
    write_lock(tmp_path, inputs_of(data))
    check_lock(tmp_path, inputs_of(data))


def test_what_a_lock_does_not_name_is_added(tmp_path: Path, data: Path) -> None:
    write_lock(tmp_path, find_inputs(load_space("embedded", {"tasks": ["tiny-cb"]})))
    check_lock(tmp_path, inputs_of(data))
    write_lock(tmp_path, inputs_of(data))
    lock = tomllib.loads((tmp_path / "inputs.lock.toml").read_text())
    assert set(lock["tasks"]) == {"rte", "tiny-cb"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[models", "is damaged"),
        ("version = " + "[" * 100_000, "is damaged"),
        ("version = 9", "not an input lock of version 1"),
        ("version = 1\nmodels = 3", "is damaged: models = 3"),
    ],
)
def test_a_lock_that_cannot_be_read(tmp_path: Path, data: Path, content: str, message: str) -> None:
    (tmp_path / "inputs.lock.toml").write_text(content)
    with pytest.raises(ArtifactError, match=message):
        check_lock(tmp_path, inputs_of(data))
