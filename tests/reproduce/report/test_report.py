"""The report as a reader gets it: complete, escaped, self-contained, and honest about what is absent."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from reproduce.report import build
from reproduce.report.figures.registry import FIGURES
from reproduce.store.parquet import StoreError
from tests.reproduce.report.synthetic import grid, trial_row, write_rows

_VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """A page's structure: unbalanced tags, ids, references, and the texts of table rows."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data
        if "td" in self.open:
            self.rows[-1][-1] += data

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "action", "srcset"):
                self.references.append(value or "")
            self.references += re.findall(r"url\(([^)]*)\)", value or "")


def read(out: Path) -> Page:
    return Page((out / "report.html").read_text("utf-8"))


def report(tmp_path: Path, rows: list[dict[str, Any]], **options: Any) -> Page:
    build([write_rows(tmp_path / "trials", rows)], tmp_path / "out", **options)
    return read(tmp_path / "out")


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    summary = build([folder], out, command="reproduce run embedded")
    assert (summary.ok, summary.failed, summary.damaged, summary.missing) == (72, 0, 0, 0)
    assert summary.page == out / "report.html"
    assert "are miniatures" in summary.headlines[0]
    assert any(text.startswith("72 of 72 trials succeeded: 6 strategies") for text in summary.headlines)
    sentences = [text.split(":")[0] for text in summary.headlines]
    tally = next(text for text in summary.headlines if text.startswith("Of the paper's"))
    assert sentences.index("BOT25 against ALL") < summary.headlines.index(tally)
    return out


def test_the_numbers_come_before_verdicts_and_ranks(whole: Path) -> None:
    for text in (read(whole).text, (whole / "report.md").read_text("utf-8")):
        places = [text.index(part) for part in ("BOT25 against ALL", "Of the paper's")]
        assert places == sorted(places)
        assert text.count("no trial is of the paper's models") == 1


def test_every_file_is_written(whole: Path) -> None:
    drawn = {plot.name for plot in FIGURES} - {
        "figure_11",
        "experiments",
        "sensitivity",
        "loss",
        "evaluations",
    }
    files = {f"{name}.{kind}" for name in drawn for kind in ("png", "svg", "pdf", "csv")}
    assert {path.name for path in (whole / "figures").iterdir()} == files
    names = ("headline", "claims", "tasks", "accuracy", "efficiency", "predictions", "ranking")
    tables = {f"{name}.{kind}" for name in names for kind in ("csv", "tex")} | {"trials.csv"}
    assert {path.name for path in (whole / "tables").iterdir()} == tables
    assert pl.read_csv(whole / "tables" / "trials.csv").height == 72


def test_page_stands_alone(whole: Path) -> None:
    page = read(whole)
    assert page.references
    assert [r for r in page.references if not r.startswith("#")] == []
    assert "@import" not in (whole / "report.html").read_text("utf-8")
    assert page.tags.count("svg") == len(list((whole / "figures").glob("*.svg")))


def test_ids_do_not_collide_and_references_have_their_target(whole: Path) -> None:
    page = read(whole)
    assert len(page.ids) == len(set(page.ids))
    assert {r.removeprefix("#") for r in page.references} <= set(page.ids)


def test_no_null_reaches_the_reader(whole: Path) -> None:
    for text in (read(whole).text, (whole / "report.md").read_text("utf-8")):
        assert not re.search(r"\b(nan|NaN|None|null|inf)\b", text)


def test_same_trials_give_the_same_report(whole: Path, folder: Path, tmp_path: Path) -> None:
    build([folder], tmp_path, command="reproduce run embedded")
    for path in (p for p in whole.rglob("*") if p.is_file()):
        assert path.read_bytes() == (tmp_path / path.relative_to(whole)).read_bytes(), path.name


def test_reader_is_told_of_tiny_models_shared_devices_and_the_proof(whole: Path) -> None:
    for text in (read(whole).text, (whole / "report.md").read_text("utf-8")):
        assert "not evidence for or against the paper" in text
        assert "Speed was measured while other trials used the same device" in text
        assert text.count("in 72 of 72 trials") == 4
        assert "reproduce run embedded" in text
        assert "freeze_embeddings" in text


def test_every_trial_has_its_row(whole: Path) -> None:
    rows = [row for row in read(whole).rows if len(row) == 12 and row[4] == "ok"]
    assert len(rows) == 72
    assert ["BOT25", "tiny-gemma", "tiny-cb", "42", "ok"] in [row[:5] for row in rows]
    assert all("▲" in row[8] for row in rows)


def test_real_models_on_their_own_device_carry_no_warning_and_stale_figures_go(tmp_path: Path) -> None:
    stale = tmp_path / "out" / "figures" / "sensitivity.png"
    stale.parent.mkdir(parents=True)
    stale.touch()
    page = report(tmp_path, grid(("gemma-2b",), ("rte",), ("ALL", "BOT25"), (42, 43)))
    assert not stale.exists()
    assert 'role="note"' not in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "▲" not in "".join(cell for row in page.rows for cell in row)


def test_failed_damaged_and_missing_trials_are_listed(tmp_path: Path) -> None:
    rows = grid(tasks=("tiny-rte",), strategies=("ALL", "BOT25"), seeds=(42, 43))
    rows.append(
        trial_row("TOP25", status="oom", error_type="OutOfMemoryError", error_message="2 GiB too many")
    )
    root = write_rows(tmp_path / "trials", rows)
    (damaged,) = (root / "trials").rglob("strategy=BOT25/seed=43-*.parquet")
    damaged.write_bytes(b"PAR1 cut")
    cell = {"model": "tiny-gemma", "task": "tiny-rte"}
    asked = [
        {**cell, "strategy": "INT50", "seed": 44},
        {**cell, "strategy": "BOT25", "seed": 43},  # damaged
        {**cell, "strategy": "ALL", "seed": 42},  # finished
    ]
    summary = build([root], tmp_path / "out", missing=asked)
    assert (summary.ok, summary.failed, summary.damaged, summary.missing) == (3, 1, 1, 1)
    assert any(text.startswith("3 of 6 trials") for text in summary.headlines)
    page = read(tmp_path / "out")
    listed = {row[0]: row for row in page.rows if row and row[0] in ("oom", "damaged", "missing")}
    assert listed["oom"][1:] == ["TOP25", "tiny-gemma", "tiny-rte", "42", "OutOfMemoryError: 2 GiB too many"]
    assert listed["damaged"][1:5] == ["BOT25", "tiny-gemma", "tiny-rte", "43"]
    assert str(tmp_path) not in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert listed["missing"][1:5] == ["INT50", "tiny-gemma", "tiny-rte", "44"]
    assert "3 of 6 trials have no result (1 failed, 1 damaged, 1 missing)" in page.text
    csv = pl.read_csv(tmp_path / "out" / "tables" / "problems.csv")
    assert sorted(csv["problem"]) == ["damaged", "missing", "oom"]


def test_markup_in_an_error_message_stays_text(tmp_path: Path) -> None:
    message = "<script>alert('x')</script> a | b & <img src=http://example.org/x>"
    page = report(tmp_path, [trial_row("ALL"), trial_row("BOT25", status="error", error_message=message)])
    assert f"RuntimeError: {message}" in [row[-1] for row in page.rows if row]
    assert page.tags.count("script") == 2
    assert "img" not in page.tags
    markdown = (tmp_path / "out" / "report.md").read_text("utf-8")
    assert "<script" not in markdown
    assert "a \\| b &amp;" in markdown


def test_one_seed_has_no_deviation(tmp_path: Path) -> None:
    page = report(tmp_path, [trial_row("ALL", validation_accuracy=0.7), trial_row("BOT25")])
    assert ["tiny-gemma", "ALL", "70.0 ± – (1)"] in page.rows
    assert not re.search(r"\bnan\b", page.text, re.IGNORECASE)


def test_without_all_a_note_says_that_savings_are_unknown(tmp_path: Path) -> None:
    page = report(tmp_path, [trial_row("BOT25"), trial_row("TOP25"), trial_row("ALL", status="oom")])
    assert "savings against ALL cannot be computed" in page.text
    (row,) = (row for row in page.rows if len(row) == 13 and row[2] == "BOT25")
    assert (row[5], row[8]) == ("–", "–")
    assert not re.search(r"[−+]\d+\.\d %", page.text)


def test_all_failed_gives_a_plain_report_and_clears_old_figures(tmp_path: Path) -> None:
    report(tmp_path / "first", [trial_row("ALL")])
    root = write_rows(
        tmp_path / "trials", [trial_row("ALL", status="error"), trial_row("BOT25", status="timeout")]
    )
    summary = build([root], tmp_path / "first" / "out")
    assert (summary.ok, summary.failed) == (0, 2)
    page = read(tmp_path / "first" / "out")
    assert "there is nothing to draw" in page.text
    assert "svg" not in page.tags
    assert list((tmp_path / "first" / "out" / "figures").iterdir()) == []
    assert [path.name for path in (tmp_path / "first" / "out" / "tables").glob("a*")] == []


def test_only_missing_trials_are_a_report_too(tmp_path: Path) -> None:
    missing = [{"model": "m", "task": "t", "strategy": "ALL", "seed": 1}]
    page = report(tmp_path, [], missing=missing)
    assert "0 of 1 trial succeeded" in page.text
    assert ["missing", "ALL", "m", "t", "1", "no result was written"] in page.rows


def test_a_broken_freeze_proof_is_named(tmp_path: Path) -> None:
    page = report(tmp_path, [trial_row("ALL"), trial_row("BOT25", frozen_unchanged=False, backward_depth=8)])
    assert "frozen tensors stayed bit-identical: in 1 of 2 trials; not in BOT25" in page.text
    assert "equalled the planned one: in 1 of 2 trials" in page.text
    assert "The freeze proof fails for 1 trial (BOT25 (tiny-gemma, tiny-rte, seed 42))" in page.text


def test_two_folders_with_two_recipes_are_not_averaged(tmp_path: Path) -> None:
    roots = [
        write_rows(tmp_path / "a", [trial_row("ALL", validation_accuracy=0.5, run_id="a")]),
        write_rows(
            tmp_path / "b",
            [trial_row("ALL", validation_accuracy=0.9, run_id="b", recipe_padding="max_length")],
        ),
    ]
    build(roots, tmp_path / "out")
    page = read(tmp_path / "out")
    assert ["tiny-gemma", "ALL", "50.0 ± – (1)"] in page.rows
    assert "they differ in padding" in page.text
    assert "1 trial repeats" in page.text


@pytest.mark.parametrize("make", [False, True])
def test_nothing_to_report_is_one_sentence(tmp_path: Path, make: bool) -> None:
    if make:
        (tmp_path / "empty" / "trials").mkdir(parents=True)
    with pytest.raises(StoreError, match="nothing to report" if make else "not an artifact folder") as caught:
        build([tmp_path / "empty"], tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_unwritable_folder_is_one_sentence(tmp_path: Path) -> None:
    root = write_rows(tmp_path / "trials", [trial_row("ALL")])
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        build([root], tmp_path / "file" / "out")


def test_report_needs_neither_torch_nor_transformers_nor_ray(tmp_path: Path) -> None:
    root = write_rows(tmp_path / "trials", [trial_row("ALL"), trial_row("BOT25")])
    code = (
        "import sys; from pathlib import Path; from reproduce.report import build; "
        f"build([Path({str(root)!r})], Path({str(tmp_path / 'out')!r})); "
        "print([m for m in ('torch', 'transformers', 'ray', 'peft') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
