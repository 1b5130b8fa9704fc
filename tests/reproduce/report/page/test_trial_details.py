"""The details of each trial that the page embeds."""

from __future__ import annotations

import math
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from reproduce.report.analysis.report_data import collect_data
from reproduce.report.analysis.tables import table_trials
from reproduce.report.page.document import Content
from reproduce.report.page.html import render_page
from reproduce.report.page.trial_details import MOST_POINTS, trial_records
from reproduce.report.text.tables import trials_layout
from reproduce.store.parquet import TrialResult, write_trial
from reproduce.store.schema import TRIAL_SCHEMA
from reproduce.store.trial_row import TrialRow
from tests.reproduce.report.synthetic import trial_row


def test_records_are_small_and_complete() -> None:
    rows = [trial_row("ALL"), trial_row("BOT25", layer_changes=[math.nan, 0.5])]
    trials = pl.DataFrame(rows, schema=TRIAL_SCHEMA)
    steps = pl.LazyFrame(
        {
            "run_id": [trials["run_id"][0]] * 1000,
            "step": range(1, 1001),
            "loss": [math.nan, *([0.123456789] * 999)],
        }
    )
    data = trial_records(trials, steps)
    columns = {entry["name"]: entry for entry in data["columns"]}
    assert data["count"] == 2
    assert columns["device"] == {"name": "device", "group": "Provenance", "cells": ["cpu"], "codes": None}
    assert columns["strategy"]["codes"] == [0, 1]
    assert columns["gpu_name"]["cells"] == [{"why": "no gpu_name in this test"}]
    assert columns["layer_changes"]["cells"][1] == [None, 0.5]
    curve, none = columns["loss"]["cells"]
    assert (len(curve), curve[0], curve[1]) == (MOST_POINTS, None, 0.1235)
    assert none == {"why": "no training step was recorded"}
    assert columns["loss_width"]["cells"][0] == 20
    assert "loss" not in {entry["name"] for entry in trial_records(trials)["columns"]}


def test_a_damaged_file_of_steps_does_not_stop_the_page(tmp_path: Path) -> None:
    write_trial(tmp_path, TrialResult(TrialRow.from_columns(trial_row("ALL")), {"step": [1], "loss": [0.5]}))
    (steps,) = (tmp_path / "steps").rglob("*.parquet")
    collected = collect_data([tmp_path], [])
    steps.write_bytes(b"PAR1 neither cut nor whole PAR1")
    data = trial_records(collected.trials, collected.steps)
    (cells,) = (entry["cells"] for entry in data["columns"] if entry["name"] == "loss")
    assert cells == [{"why": "a file of training steps could not be read"}]


def test_too_many_trials_have_no_details(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[trial_records.__module__], "MOST_TRIALS", 1)
    trials = pl.DataFrame([trial_row("ALL"), trial_row("BOT25")], schema=TRIAL_SCHEMA)
    records = trial_records(trials)
    assert records == {"count": 2, "columns": []}
    parts: dict[str, Any] = {field.name: [] for field in fields(Content)}
    parts |= {"headline": "", "numbers": None, "origins": {}, "tables": [trials_layout(table_trials(trials))]}
    text = render_page(Content(**parts), records)
    assert "With 2 trials, this page does not contain the details of each" in text
    assert text.count("</script>") == 1
