"""Draws the report's pictures of this documentation from the published miniature sweep.

    python docs/pictures/draw.py

Needs Chromium for the picture of the page. The figures show one model and two tasks, so that they are
legible at the width of a page.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import polars as pl

from reproduce.report import build
from reproduce.report.analysis.report_data import ReportData, collect_data
from reproduce.report.figures.registry import FIGURES
from reproduce.report.figures.style import style

_PICTURES = Path(__file__).parent
_REFERENCE = Path(__file__).parents[2] / "artifacts" / "reference" / "embedded-full"
_DRAWN = ("figure_3", "figure_4", "figure_5", "figure_6", "differences", "pareto")
_PIXELS_PER_INCH = 110
_SCREEN = (1280, 1120)


def main() -> None:
    trials = collect_data([_REFERENCE], ()).trials
    shown = trials.filter(
        pl.col("model") == "tiny-gemma",
        pl.col("task").is_in(("tiny-rte", "tiny-cb")),
    )
    narrow = ReportData(shown, shown, None, None, (), ())
    for spec in FIGURES:
        if spec.name in _DRAWN:
            with style():
                figure = spec.draw(spec.compute(narrow))
                figure.savefig(
                    _PICTURES / f"{spec.name}.png", dpi=_PIXELS_PER_INCH, metadata={"Software": None}
                )
    with tempfile.TemporaryDirectory() as folder:
        page = build([_REFERENCE], Path(folder)).page
        _photograph(page, _PICTURES / "report.png")


def _photograph(page: Path, picture: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("Chromium is not installed: report.png was not drawn")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    size = ",".join(map(str, _SCREEN))
    command = [browser, *options, f"--screenshot={picture}", f"--window-size={size}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    main()
