"""Make figures, tables and one self-contained HTML page from the files of artifact folders.

Neither torch, transformers nor Ray is imported here.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lfreeze.atomic import write_atomically
from reproduce.store.parquet import StoreError, TrialTable

if TYPE_CHECKING:
    from reproduce.report.page.document import Content

__all__ = ["Summary", "build"]
_BESIDE = ".report-"
# No report takes longer to write.
_MOST_SECONDS = 3600.0


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
            With ``point``, the values of a grid, and ``run_id``, as far as there are. Those that have a row, or a damaged file, are not listed as missing.
        tables: the folders' trials, if they have been read already.

    Raises:
        StoreError: a folder is not an artifact folder, there is nothing to report, a figure cannot be
            drawn, or ``out`` cannot be written.
    """
    # Not at the top: ``plan`` imports a part of this package, without the figures' matplotlib.
    from reproduce.report.analysis.report_data import collect_data
    from reproduce.report.figures.registry import PARALLEL_FROM
    from reproduce.report.figures.render_pool import RenderPool
    from reproduce.report.page.document import compose
    from reproduce.report.page.html import markdown_page, render_page
    from reproduce.report.page.trial_details import trial_records

    data = collect_data(roots, missing, tables)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with (
            _folder_beside(out) as work,
            RenderPool(parallel=data.trials.height >= PARALLEL_FROM) as pool,
        ):
            content = compose(data, work, command, pool)
            _write_tables(content, work / "tables")
            records = trial_records(data.every, data.steps)
            pool.finish()
            texts = {"report.md": markdown_page(content), "report.html": render_page(content, records)}
            _move(work, out)
        # The page comes last: until then, an earlier report's stays, and is older than the trials.
        for name, text in texts.items():
            write_atomically(out / name, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
        page = out / "report.html"
    except OSError as error:
        raise StoreError(f"the report cannot be written to {out} ({error.strerror or error})") from None
    sentences = (*content.notices, content.headline, *content.answers, content.tally, *content.findings)
    return Summary(page, data.ok, data.failed, len(data.damaged), len(data.missing), sentences)


@contextlib.contextmanager
def _folder_beside(out: Path) -> Iterator[Path]:
    """A folder in ``out`` for a report that is not complete; those of reports that were killed are removed."""
    for killed in out.glob(f"{_BESIDE}*"):
        if time.time() - killed.stat().st_mtime > _MOST_SECONDS:
            shutil.rmtree(killed, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_BESIDE, dir=out, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _move(work: Path, out: Path) -> None:
    """Move the files of figures and tables into ``out``, and remove those of an earlier report."""
    from reproduce.report.figures.registry import figure_files

    for folder, patterns in (("tables", ("*.csv", "*.tex")), ("figures", figure_files())):
        (out / folder).mkdir(exist_ok=True)
        for pattern in patterns:
            for stale in (out / folder).glob(pattern):
                stale.unlink()
        for path in (work / folder).iterdir():
            path.replace(out / folder / path.name)


def _write_tables(content: Content, folder: Path) -> None:
    from reproduce.report.text.exports import latex, write_csv

    folder.mkdir(parents=True, exist_ok=True)
    for table in filter(None, (content.numbers, *content.tables)):
        write_csv(table.frame, folder / f"{table.name}.csv")
        if table.name != "trials":
            (folder / f"{table.name}.tex").write_text(latex(table), "utf-8")
