"""The numbers of tables and figures for other programs: CSV with unformatted values, LaTeX for papers."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from reproduce.report.text.tables import Table

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "▲": r"$\blacktriangle$",
}


def write_csv(frame: pl.DataFrame, path: Path) -> None:
    """Write unformatted numbers; the items of a list are separated by spaces.

    A text that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    lists = [name for name, dtype in frame.schema.items() if dtype.is_nested()]
    texts = [pl.col(name) for name, dtype in frame.schema.items() if dtype == pl.String]
    flat = frame.with_columns(
        pl.when(text.str.contains(r"^[=+\-@\t\r]")).then(pl.lit("'") + text).otherwise(text).name.keep()
        for text in texts
    )
    flat = flat.with_columns(pl.col(name).cast(pl.List(pl.String)).list.join(" ") for name in lists)
    flat.write_csv(path)


def latex(table: Table) -> str:
    """A table as a LaTeX ``tabular`` with the rules of booktabs; it needs that package and amssymb."""
    columns = "".join("r" if column.numeric else "l" for column in table.columns)
    rows = [[cell.text for cell in row] for row in table.rows]
    lines = [" & ".join(map(escape_latex, row)) + r" \\" for row in rows]
    header = " & ".join(escape_latex(column.header) for column in table.columns) + r" \\"
    parts = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", header, r"\midrule", *lines, r"\bottomrule"]
    return "\n".join([f"% {table.title}", *parts, r"\end{tabular}", ""])


def escape_latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
