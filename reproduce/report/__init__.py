"""From artifact folders to figures, tables and one self-contained HTML page; reads files only.

Neither torch, transformers nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reproduce.report.analysis.report_data import collect
from reproduce.report.page.document import Content, compose
from reproduce.report.page.html import markdown_page, render_page
from reproduce.report.page.trial_details import trial_records as records_of
from reproduce.report.text.exports import latex, write_csv
from reproduce.store.parquet import StoreError, TrialTable

__all__ = ["Summary", "build"]


@dataclass(frozen=True)
class Summary:
    """What a report holds.

    Attributes:
        page: the HTML page.
        ok, failed, damaged, missing: numbers of trials.
        headlines: what was run and found, one sentence each.
    """

    page: Path
    ok: int
    failed: int
    damaged: int
    missing: int
    headlines: tuple[str, ...]


def build(
    roots: Sequence[Path],
    out: Path,
    *,
    command: str | None = None,
    missing: Sequence[Mapping[str, object]] = (),
    tables: Sequence[TrialTable] | None = None,
) -> Summary:
    """Write the report of one or more artifact folders into ``out``.

    Args:
        command: the command line that produced the trials, for the page.
        missing: trials that were asked for and may have no row, as mappings with model, task,
            strategy and seed. Those that have a row, or a damaged file, are not listed as missing.
        tables: the folders' trials, if they are read already.

    Raises:
        StoreError: a folder is no artifact folder, there is nothing at all to report, or ``out``
            cannot be written.
    """
    found = collect(roots, missing, tables)
    try:
        content, drawing = compose(found, out, command)
        _write_tables(content, out / "tables")
        records = records_of(found.trials, found.steps)
        drawing.finish()
        page = out / "report.html"
        page.write_text(render_page(content, records), "utf-8")
        (out / "report.md").write_text(markdown_page(content), "utf-8")
    except OSError as error:
        raise StoreError(f"the report cannot be written to {out} ({error.strerror or error})") from None
    sentences = (*content.notices, content.headline, *content.findings, content.tally)
    return Summary(page, found.ok, found.failed, len(found.damaged), len(found.missing), sentences)


def _write_tables(content: Content, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stale in [*folder.glob("*.csv"), *folder.glob("*.tex")]:
        stale.unlink()
    for table in content.tables:
        write_csv(table.frame, folder / f"{table.name}.csv")
        if table.name != "trials":
            (folder / f"{table.name}.tex").write_text(latex(table), "utf-8")
