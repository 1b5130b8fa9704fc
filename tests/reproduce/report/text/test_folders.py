"""Several folders in one report: compared over what they share, told apart by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from reproduce.report import build
from reproduce.report.analysis.report_data import collect_data
from reproduce.report.text.folders import table_folders, table_side_by_side
from tests.reproduce.report.synthetic import trial_row, write_rows


def two_gpus(tmp_path: Path) -> list[Path]:
    """One trial fewer, another GPU and half the time in the second folder; one accuracy differs."""
    here = [
        trial_row(s, seed=seed, validation_accuracy=0.8, training_bytes=size, seconds_per_10_steps=time)
        for s, size, time in (("ALL", 1000, 4.0), ("BOT50", 500, 3.0))
        for seed in (42, 43)
    ]
    there = [
        {**row, "gpu_name": "H100", "seconds_per_10_steps": row["seconds_per_10_steps"] / 2} for row in here
    ]
    there[0]["validation_accuracy"] = 0.9
    lost = trial_row("BOT50", seed=43, status="oom", gpu_name="H100")
    write_rows(tmp_path / "a" / "sweep", here)
    write_rows(tmp_path / "b" / "sweep", [*there[:3], lost])
    return [tmp_path / "a" / "sweep", tmp_path / "b" / "sweep"]


def test_folders_are_compared_over_what_they_share(tmp_path: Path) -> None:
    runs = collect_data(two_gpus(tmp_path), []).runs
    first, second = table_folders(runs).to_dicts()
    assert (first["folder"], second["folder"]) == ("sweep (1)", "sweep (2)")
    assert (first["trials"], first["ok"], second["trials"], second["ok"]) == (4, 4, 4, 3)
    assert (first["n"], second["n"], first["same"], second["same"]) == (3, 3, 3, 2)
    assert first["accuracy"] == pytest.approx(0.8)
    assert second["accuracy"] == pytest.approx((0.9 + 0.8 + 0.8) / 3)
    assert second["largest"] == pytest.approx(0.1)
    assert (first["device"], second["device"]) == ("A CPU of 2.0 GHz", "H100")
    rows = {row["strategy"]: row for row in table_side_by_side(runs).to_dicts()}
    assert (rows["ALL"]["n"], rows["BOT50"]["n"]) == (2, 1)
    for name, seconds in (("sweep (1)", 3.0), ("sweep (2)", 1.5)):
        assert rows["BOT50"][f"{name} time"] == seconds
        assert rows["BOT50"][f"{name} time_ratio"] == pytest.approx(0.75)
        assert rows["BOT50"][f"{name} memory_ratio"] == pytest.approx(0.5)


def test_a_report_of_two_folders_shows_them_side_by_side(tmp_path: Path) -> None:
    summary = build(two_gpus(tmp_path), tmp_path / "out")
    text = summary.page.read_text("utf-8")
    assert "Folders side by side" in text
    assert "sweep (2): s per 10 steps" in text
    assert (tmp_path / "out" / "tables" / "side_by_side.csv").is_file()


def test_folders_with_nothing_in_common(tmp_path: Path) -> None:
    roots = [tmp_path / "a", tmp_path / "b"]
    write_rows(roots[0], [trial_row("ALL")])
    write_rows(roots[1], [trial_row("LoRA", status="error")])
    runs = collect_data(roots, []).runs
    assert table_folders(runs)["n"].to_list() == [0, 0]
    assert table_side_by_side(runs).height == 0
    assert "Folders side by side" not in build(roots, tmp_path / "out").page.read_text("utf-8")
