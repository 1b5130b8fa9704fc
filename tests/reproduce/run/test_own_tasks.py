"""Texts of one's own, from a file or the hub to a report in one command; pandas and scikit-learn count and judge."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from reproduce.store.parquet import read_trials, scan_table
from tests.support.hub_server import HubServer
from tests.support.program import CODE, Program

SPACE = """
extends = "embedded"
models = ["tiny-gemma"]
strategies = ["ALL", "BOT50"]
seeds = [7]

[recipe]
steps = 6
batch_size = 8
probe_steps = 2
max_length = 48
data_seed = 3

[tasks.mine]
"""
INLINE = ("--engine", "inline")
WORDS = ["awful", "poor, really", 'fine, "sort of"', "superb\nindeed"]


def reviews(n: int, labels: list[object]) -> pd.DataFrame:
    """Labels of unequal shares, and texts that a careless reader of CSV splits."""
    kinds = [(i * i + i // 3) % len(labels) for i in range(n)]
    return pd.DataFrame(
        {
            "number": range(n),
            "review": [f"The food of day {i} was {WORDS[kind % 4]}." for i, kind in enumerate(kinds)],
            "answer": [f'He said "{i}".' for i in range(n)],
            "stars": [labels[kind] for kind in kinds],
        }
    )


def run(folder: Path, *arguments: str, **variables: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(CODE), "LFREEZE_CACHE": str(folder / "cache"), **variables}
    done = subprocess.run(
        [sys.executable, "-m", "reproduce", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def check(folder: Path, n_train: int, validation: pd.DataFrame, labels: list[str]) -> None:
    """The rows of both trials against the validation examples as pandas has them."""
    root = folder / "artifacts" / "space"
    assert (root / "report" / "report.html").is_file()
    table = read_trials([root])
    scan = scan_table([table], "predictions")
    assert scan is not None
    predictions = scan.collect()
    assert sorted(table.frame["strategy"]) == ["ALL", "BOT50"]
    for row in table.frame.iter_rows(named=True):
        assert row["status"] == "ok", row["error_message"]
        assert (row["label_names"], row["task"]) == (labels, "mine")
        assert (row["n_train"], row["n_validation"]) == (n_train, len(validation))
        of_trial = predictions.filter(pl.col("run_id") == row["run_id"])
        expected = [labels.index(str(label)) for label in validation["stars"]]
        assert of_trial["label"].to_list() == expected
        predicted = of_trial["prediction"].to_list()
        assert row["validation_accuracy"] == pytest.approx(accuracy_score(expected, predicted))
        assert row["macro_f1"] == pytest.approx(f1_score(expected, predicted, average="macro"))
        assert row["matthews_correlation"] == pytest.approx(matthews_corrcoef(expected, predicted))
        assert row["majority_accuracy"] == pytest.approx(
            validation["stars"].value_counts(normalize=True).max()
        )


@pytest.mark.sweep
def test_single_texts_in_csv_with_four_classes(reproduce: Program, tmp_path: Path) -> None:
    """Quoted commas, quotes and line breaks; then the finished folder is verified and has nothing to run."""
    train, dev = reviews(90, [1, 2, 3, 4]), reviews(31, [1, 2, 3, 4])
    (tmp_path / "texts").mkdir()
    train.to_csv(tmp_path / "texts" / "train.csv", index=False)
    dev.to_csv(tmp_path / "texts" / "dev.csv", index=False)
    source = 'train = "texts/train.csv"\nvalidation = "texts/dev.csv"\ntext = "review"\nlabel = "stars"\n'
    (tmp_path / "space.toml").write_text(SPACE + source)
    assert "Report: " in reproduce("run", "space.toml", *INLINE, cwd=tmp_path)
    check(tmp_path, 90, dev, ["1", "2", "3", "4"])
    reproduce("verify", "artifacts/space", cwd=tmp_path)
    assert "nothing to run" in reproduce("run", "space.toml", *INLINE, cwd=tmp_path)
    lock = tomllib.loads((tmp_path / "artifacts" / "space" / "inputs.lock.toml").read_text())["tasks"]["mine"]
    assert (lock["dataset_id"], lock["n_train"], lock["n_validation"]) == ("local/mine", 90, 31)
    assert set(lock["files"]) == {"train/train.csv", "validation/dev.csv"}
    # Another text is another trial, which the lock refuses.
    train.loc[5, "review"] = "changed"
    train.to_csv(tmp_path / "texts" / "train.csv", index=False)
    message = reproduce("run", "space.toml", *INLINE, cwd=tmp_path, expect=2)
    assert "the task mine differs from" in message


SOURCES: dict[str, tuple[Callable[[pd.DataFrame, Path], None], str, list[object]]] = {
    "jsonl": (
        lambda frame, path: frame.to_json(path, orient="records", lines=True),
        'text = ["review", "answer"]\nlabels = ["no", "yes"]\n',
        ["yes", "no"],
    ),
    "parquet": (lambda frame, path: frame.to_parquet(path), 'text = "review"\n', [10, 9, -3]),
}


@pytest.mark.sweep
@pytest.mark.parametrize("ending", SOURCES)
def test_pairs_in_json_lines_and_integer_labels_in_parquet(
    ending: str, reproduce: Program, tmp_path: Path
) -> None:
    write, keys, labels = SOURCES[ending]
    train, dev = reviews(60, labels), reviews(25, labels)
    write(train, tmp_path / f"a.{ending}")
    write(dev, tmp_path / f"b.{ending}")
    files = f'train = "a.{ending}"\nvalidation = "b.{ending}"\nlabel = "stars"\n'
    (tmp_path / "space.toml").write_text(SPACE + files + keys)
    reproduce("run", "space.toml", *INLINE, cwd=tmp_path)
    check(tmp_path, 60, dev, ["no", "yes"] if ending == "jsonl" else ["-3", "9", "10"])


@pytest.mark.sweep
def test_a_dataset_on_the_hub_of_which_validation_is_drawn(tmp_path: Path) -> None:
    """A commit that is pinned; a fifth of each label's examples validates."""
    frame = reviews(100, [0, 1])
    table = pa.table({"review": frame["review"], "stars": frame["stars"]})
    file = io.BytesIO()
    pq.write_table(table, file)
    with HubServer() as hub:
        commit = hub.add_dataset("someone/reviews", {"data/all-00000-of-00001.parquet": file.getvalue()})
        hub.add_dataset("someone/reviews", {"README.md": b"moved on"})
        source = f"""dataset = "someone/reviews"
revision = "{commit}"
splits = ["all"]
validation_fraction = 0.2
text = "review"
label = "stars"
"""
        (tmp_path / "space.toml").write_text(SPACE + source)
        variables = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
        assert "mine" in run(tmp_path, "plan", "space.toml", "--all", **variables, NO_PROXY="127.0.0.1")
        run(tmp_path, "run", "space.toml", *INLINE, **variables, NO_PROXY="127.0.0.1")
    table_of = read_trials([tmp_path / "artifacts" / "space"])
    assert set(table_of.frame["dataset_revision"]) == {commit}
    assert set(table_of.frame["dataset_id"]) == {"someone/reviews"}
    scan = scan_table([table_of], "predictions")
    assert scan is not None
    drawn = sorted({int(example) for example in scan.collect()["example_id"]})
    # Examples are named by their rows, which count from 1.
    validation = frame.iloc[[place - 1 for place in drawn]]
    shares = frame["stars"].value_counts() * 0.2
    assert (validation["stars"].value_counts() - shares).abs().max() < 1
    check(tmp_path, 80, validation, ["0", "1"])
