"""A trial whose files were edited, exchanged or damaged is named and not used; its neighbours stay."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner
from sklearn.metrics import f1_score, matthews_corrcoef

from reproduce.cli.app import main
from reproduce.store.artifacts import read_folder
from reproduce.store.contents import checked_contents
from reproduce.store.parquet import TrialResult, read_trials, scan_table, write_trial
from reproduce.store.schema import ORDER_IN_TABLE, SCHEMA_VERSION, TABLES
from reproduce.store.trial_row import TrialRow
from reproduce.verify import verify

EARLIER = Path(__file__).parents[2] / "data" / "schema-2"


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real trials of an earlier version as the present one writes them, with their checksums."""
    root = tmp_path_factory.mktemp("sealed") / "folder"
    root.mkdir()
    shutil.copy(EARLIER / "sweep.json", root)
    table = read_trials([EARLIER])
    others = {name: scan_table([table], name) for name in ORDER_IN_TABLE}
    for row in table.frame.drop("artifacts").iter_rows(named=True):
        parts = {
            name: rows.filter(pl.col("run_id") == row["run_id"])
            .drop("run_id")
            .collect()
            .to_dict(as_series=False)
            for name, rows in others.items()
            if rows is not None
        }
        write_trial(
            root, TrialResult(TrialRow.from_columns({**row, "schema_version": SCHEMA_VERSION}), **parts)
        )
    return root


@pytest.fixture(params=["sealed", "earlier"])
def folder(request: pytest.FixtureRequest, sealed: Path, tmp_path: Path) -> Path:
    """A copy of a sound folder, with checksums or from a version before them."""
    source = sealed if request.param == "sealed" else EARLIER
    return Path(shutil.copytree(source, tmp_path / "folder"))


def files(root: Path, table: str) -> list[Path]:
    return sorted((root / table).rglob("*.parquet"))


def edit(path: Path, **columns: Any) -> None:
    """Replace columns of a file's rows: what an editor of Parquet files would leave."""
    rows = pl.read_parquet(path, hive_partitioning=False)
    rows.with_columns(
        **{name: value.cast(rows.schema[name]) for name, value in columns.items()}
    ).write_parquet(path)


def faults(root: Path) -> list[str]:
    """What ``verify`` says does not hold, with its details."""
    return [
        f"{check.name}: {detail}"
        for check in verify(read_folder(root))
        if check.passed is False
        for detail in (*check.details, check.sentence)
    ]


def test_a_sound_folder_has_no_fault(folder: Path) -> None:
    assert faults(folder) == []
    table = read_folder(folder).table
    assert checked_contents(table).frame.equals(table.frame)


ROW_EDITS: dict[str, tuple[dict[str, Any], str]] = {
    "accuracy": ({"validation_accuracy": pl.lit(0.99)}, "accuracy"),
    "impossible accuracy": ({"validation_accuracy": pl.lit(7.5)}, "has a validation_accuracy outside 0 to 1"),
    "accuracy not a number": (
        {"validation_accuracy": pl.lit(float("nan"))},
        "validation_accuracy outside 0 to 1",
    ),
    "no accuracy": ({"validation_accuracy": pl.lit(None, pl.Float64)}, "has no validation_accuracy"),
    "no strategy": ({"strategy": pl.lit("")}, "has an empty strategy"),
    "no status": ({"status": pl.lit("fine")}, "has a status other than ok, oom, error, timeout, skipped"),
    "layers": ({"n_layers": pl.lit(10**9)}, "has a number of layers outside 1 to 100,000"),
    "frozen layers": ({"frozen_layers": pl.lit([99])}, "has frozen layers that its model does not have"),
    "another run id": ({"run_id": pl.lit("0123456789abcdef")}, "holds another trial"),
    "another seed": ({"seed": pl.lit(77)}, "holds another trial"),
    "time": ({"step_seconds_median": pl.lit(1e-9)}, "step times"),
    "tokens": ({"tokens": pl.lit(1)}, "tokens"),
    "examples": ({"n_validation": pl.lit(7)}, "predictions"),
    "proof": ({"frozen_unchanged": pl.lit(False)}, "frozen weights changed"),
    "depth": ({"backward_depth": pl.lit(1)}, "not as deep as planned"),
    "recipe": ({"recipe_learning_rate": pl.lit(0.5)}, "run ids"),
    "weights": ({"weights_hash": pl.lit("0" * 64)}, "run ids"),
}


@pytest.mark.parametrize("name", ROW_EDITS)
def test_an_edited_row_is_found(name: str, folder: Path) -> None:
    columns, reason = ROW_EDITS[name]
    path = files(folder, "trials")[0]
    sealed = "row_checksum" in pl.read_parquet_schema(path)
    edit(path, **columns)
    found = faults(folder)
    impossible = reason.startswith(("has ", "holds ", "validation_accuracy"))
    expected = "its checksum is not that of its content" if sealed and not impossible else reason
    assert any(expected in fault for fault in found), found
    # The report does not use it either, as far as the row alone shows it.
    if sealed or impossible:
        table = read_trials([folder])
        assert table.frame.height == len(files(folder, "trials")) - 1
        assert [entry.path for entry in table.damaged] == [path]


def test_f1_and_correlation_are_recomputed_from_the_predictions(sealed: Path, tmp_path: Path) -> None:
    """As scikit-learn computes them; a row without a checksum may say nothing else."""
    folder = Path(shutil.copytree(sealed, tmp_path / "folder"))
    path, predictions = files(folder, "trials")[0], pl.read_parquet(files(folder, "predictions")[0])
    both = predictions["label"].to_list(), predictions["prediction"].to_list()
    real = {
        "macro_f1": float(f1_score(*both, average="macro")),
        "matthews_correlation": float(matthews_corrcoef(*both)),
    }
    edit(path, row_checksum=pl.lit(None), **{name: pl.lit(value) for name, value in real.items()})
    assert faults(folder) == []
    for name, value in real.items():
        edit(path, **{name: pl.lit(value - 0.01)})
        assert any(f"its predictions give a {name} of {value:.4f}" in fault for fault in faults(folder))
        edit(path, **{name: pl.lit(-1.5)})
        assert any(f"has a {name} outside" in fault for fault in faults(folder))
        edit(path, **{name: pl.lit(value)})


def noise(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 3
    content[middle : middle + 40] = random.Random(1).randbytes(40)
    path.write_bytes(content)


def no_rows(path: Path) -> None:
    pl.read_parquet(path, hive_partitioning=False).clear().write_parquet(path)


TABLE_EDITS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "noise in steps": ("steps", noise, "damaged"),
    "noise in predictions": ("predictions", noise, "damaged"),
    "no steps": ("steps", no_rows, "steps"),
    "no predictions": ("predictions", no_rows, "predictions"),
    "a loss": ("steps", lambda path: edit(path, loss=pl.lit(float("nan"))), "steps|a loss is not finite"),
    "labels": (
        "predictions",
        lambda path: edit(path, label=(pl.col("label") == 0)),
        "accuracy|have been changed",
    ),
    "logits": (
        "predictions",
        lambda path: edit(path, logits=pl.col("logits").list.reverse()),
        "largest logit|have been changed",
    ),
}


@pytest.mark.parametrize("name", TABLE_EDITS)
def test_edited_steps_and_predictions_are_found(name: str, folder: Path) -> None:
    table, damage, reason = TABLE_EDITS[name]
    before = read_folder(folder).table
    if name.startswith("noise") and "row_checksum" not in pl.read_parquet_schema(files(folder, "trials")[0]):
        pytest.skip("without checksums, noise in a number that nothing else depends on is not visible")
    damage(files(folder, table)[0])
    found = faults(folder)
    assert any(word in fault for fault in found for word in reason.split("|")), found
    assert checked_contents(read_folder(folder).table).frame.height == before.frame.height - 1


@pytest.mark.parametrize("table", ["trials", "steps", "predictions"])
def test_files_of_another_trial_are_found(table: str, folder: Path) -> None:
    one, other = files(folder, table)[:2]
    shutil.copy(other, one)
    assert faults(folder)
    assert checked_contents(read_folder(folder).table).frame.height == len(files(folder, "trials")) - 1


def test_a_file_with_a_byte_changed_is_named_or_harmless(sealed: Path, tmp_path: Path) -> None:
    """Single bytes of all three files of a trial: nothing raises, and no number moves without a word."""
    source = random.Random(5)
    folder = tmp_path / "folder"
    shutil.copytree(sealed, folder)
    for path in files(folder, "trials")[2:]:
        for table in TABLES:
            (folder / table / path.relative_to(folder / "trials")).unlink()
    sound = checked_contents(read_trials([folder])).frame
    for repetition in range(90):
        table = TABLES[repetition % 3]
        path = files(folder, table)[0]
        content = path.read_bytes()
        place = source.randrange(len(content))
        path.write_bytes(
            content[:place] + bytes([content[place] ^ (1 << source.randrange(8))]) + content[place + 1 :]
        )
        checked = checked_contents(read_trials([folder]))
        assert checked.damaged or checked.frame.equals(sound), f"{table}, byte {place}"
        path.write_bytes(content)


def test_a_file_of_many_rows_or_of_huge_ones_is_refused_unread(folder: Path) -> None:
    many, huge = files(folder, "trials")[:2]
    row = pl.read_parquet(many, hive_partitioning=False)
    pl.concat([row] * 1000).write_parquet(many)
    edit(huge, error_message=pl.lit("x" * (1 << 28)))
    reasons = {entry.path: entry.reason for entry in read_trials([folder]).damaged}
    assert reasons[many] == "holds 1,000 rows, not one trial"
    assert "bytes in 1 rows, more than trials have" in reasons[huge]


def test_every_command_names_a_damaged_file(folder: Path, tmp_path: Path) -> None:
    """A Parquet file can make compiled code panic, which is no Exception; a file of no rows is no trial."""
    noise(files(folder, "trials")[0])
    no_rows(files(folder, "trials")[1])
    edit(files(folder, "trials")[2], schema_version=pl.lit(99, pl.Int32))
    for command in (
        ["status"],
        ["verify"],
        ["report", "--out", str(tmp_path / "report")],
        ["publish", "--out", str(tmp_path / "p")],
    ):
        done = CliRunner().invoke(main, [command[0], str(folder), *command[1:]])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert "Traceback" not in done.output
