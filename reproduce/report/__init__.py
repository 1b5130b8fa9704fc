"""Make figures, tables and one self-contained HTML page from the files of artifact folders.

Neither torch, transformers nor Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reproduce.report.analysis.report_data import collect_data
from reproduce.report.figures.registry import PARALLEL_FROM
from reproduce.report.figures.render_pool import RenderPool
from reproduce.report.page.document import Content, compose
from reproduce.report.page.html import markdown_page, render_page
from reproduce.report.page.trial_details import trial_records
from reproduce.report.text.exports import latex, write_csv
from reproduce.store.parquet import StoreError, TrialTable

__all__ = ["Summary", "build"]


@dataclass(frozen=True)
class Summary:
    """The result of making a report.

    Attributes:
        page: the HTML page.
        ok, failed, damaged, missing: numbers of trials.
        headlines: notices, what was run, costs and gains, verdicts and ranks, one sentence each.
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
        missing: planned trials that may have no row, as mappings with model, task, strategy and seed.
            Those that have a row, or a damaged file, are not listed as missing.
        tables: the folders' trials, if they have been read already.

    Raises:
        StoreError: a folder is not an artifact folder, there is nothing to report, a figure cannot be
            drawn, or ``out`` cannot be written.
    """
    data = collect_data(roots, missing, tables)
    try:
        with RenderPool(parallel=data.trials.height >= PARALLEL_FROM) as pool:
            content = compose(data, out, command, pool)
            _write_tables(content, out / "tables")
            records = trial_records(data.trials, data.steps)
            pool.finish()
        page = out / "report.html"
        page.write_text(render_page(content, records), "utf-8")
        (out / "report.md").write_text(markdown_page(content), "utf-8")
    except OSError as error:
        raise StoreError(f"the report cannot be written to {out} ({error.strerror or error})") from None
    sentences = (*content.notices, content.headline, *content.answers, content.tally, *content.findings)
    return Summary(page, data.ok, data.failed, len(data.damaged), len(data.missing), sentences)


def _write_tables(content: Content, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stale in [*folder.glob("*.csv"), *folder.glob("*.tex")]:
        stale.unlink()
    for table in filter(None, (content.numbers, *content.tables)):
        write_csv(table.frame, folder / f"{table.name}.csv")
        if table.name != "trials":
            (folder / f"{table.name}.tex").write_text(latex(table), "utf-8")
