"""Table 1, and predictions beside measurements, against values worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from reproduce.report import build
from reproduce.report.analysis.tables import table_predictions, table_tasks
from reproduce.report.text.tables import tasks_layout
from reproduce.store.parquet import read_trials
from tests.reproduce.report.synthetic import trial_row, write_rows

# The paper's Table 1 as printed; and the same by the official counts: 3,200 of 104,743 and of 392,702.
TABLE_1 = {
    "cb": ((250, 250), "100.00", "250, 100 %"),
    "mnli": ((3200, 392_702), "0.81", "3,200 of 392,000, 0.8 %"),
    "qnli": ((3200, 104_743), "3.06", "3,200 of 105,000, 3.0 %"),
    "rte": ((2490, 2490), "100.00", "2,500, 100 %"),
    "wnli": ((635, 635), "100.00", "635, 100 %"),
}


def test_table_1_shows_the_papers_printed_row_beside_ours(tmp_path: Path) -> None:
    rows = [
        trial_row("ALL", "gemma-2b", task, n_train=used, n_train_available=loaded)
        for task, ((used, loaded), *_) in TABLE_1.items()
    ]
    rows += [trial_row("ALL", "phi-2", "qnli", n_train=3200, n_train_available=104_743), trial_row("ALL")]
    frame = table_tasks(read_trials([write_rows(tmp_path, rows)]).frame)
    table = tasks_layout(frame)
    headers = [column.header for column in table.columns]
    shown = {
        cells[0].text: dict(zip(headers, (cell.text for cell in cells), strict=True)) for cells in table.rows
    }
    assert list(shown) == sorted([*TABLE_1, "tiny-rte"])
    for task, ((used, loaded), share, printed) in TABLE_1.items():
        assert shown[task]["training, used"] == f"{used:,}"
        assert shown[task]["training, official"] == f"{loaded:,}"
        assert shown[task]["used, % of loaded"] == share
        assert shown[task]["training, paper's Table 1"] == printed
    assert [shown["tiny-rte"][name] for name in headers if "paper" in name or "official" in name] == ["–"] * 3
    assert frame.filter(task="mnli").select("paper_train", "paper_train_available", "paper_train_used").row(
        0
    ) == ((3200, 392_000, pytest.approx(0.008)))


def test_a_split_that_is_not_the_official_one_is_named(tmp_path: Path) -> None:
    root = write_rows(
        tmp_path, [trial_row("ALL", "phi-2", "cb", n_train_available=64, n_validation_available=56)]
    )
    build([root], root / "report", command=None, missing=[])
    page = (root / "report" / "report.md").read_text()
    assert "The training split of cb has 64 examples here, officially 250." in page
    assert "validation split of cb" not in page


def test_predictions_by_hand(tmp_path: Path) -> None:
    fixed = {
        "training_bytes": 50,
        "predicted_training_bytes": 40,
        "predicted_step_flops": 2,
        "seconds_per_10_steps": 3.0,
    }
    rows = [
        trial_row("ALL", training_bytes=100, predicted_step_flops=4, seconds_per_10_steps=4.0),
        *(trial_row("BOT50", seed=seed, **fixed) for seed in (42, 43)),
        trial_row("TOP50", predicted_step_flops=None),
    ]
    table = table_predictions(read_trials([write_rows(tmp_path, rows)]).frame).to_dicts()
    assert [row["strategy"] for row in table] == ["ALL", "BOT50"]
    found = table[1]
    assert found["n"] == 2
    assert found["memory_measured_over_predicted"] == pytest.approx(1.25)
    assert found["predicted_time_ratio"] == pytest.approx(0.5)
    assert found["measured_time_ratio"] == pytest.approx(0.75)
    assert (found["backward_depth"], found["planned_backward_depth"]) == (4, 4)


def test_random_weights_are_said_to_be_random(tmp_path: Path) -> None:
    for weights, expected in (("random", True), ("pretrained", False)):
        root = write_rows(tmp_path / weights, [trial_row("ALL", "gemma-2b", weights=weights)])
        build([root], root / "report", command=None, missing=[])
        assert ("with random weights (gemma-2b)" in (root / "report" / "report.html").read_text()) is expected
