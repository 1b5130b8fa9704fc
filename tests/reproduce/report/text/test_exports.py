"""What other programs read: CSV and LaTeX."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from reproduce.report.text.exports import escape_latex, latex, write_csv
from reproduce.report.text.tables import Column, Table


def test_latex_is_a_booktabs_tabular() -> None:
    frame = pl.DataFrame({"name": ["a_b", "50 %"], "value": [1.5, 2.5]})
    columns = (
        Column("strategy & kind", lambda row: row["name"], numeric=False),
        Column("mean ± std", lambda row: f"{row['value']} ± 1"),
    )
    lines = latex(Table("t", "A title", "", frame, columns)).splitlines()
    assert lines == [
        "% A title",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"strategy \& kind & mean $\pm$ std \\",
        r"\midrule",
        r"a\_b & 1.5 $\pm$ 1 \\",
        r"50 \% & 2.5 $\pm$ 1 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_every_special_character_is_escaped() -> None:
    assert escape_latex(r"\{}&%$#_~^") == (
        r"\textbackslash{}\{\}\&\%\$\#\_\textasciitilde{}\textasciicircum{}"
    )


def test_lists_become_plain_values(tmp_path: Path) -> None:
    write_csv(pl.DataFrame({"layers": [[0, 1, 2], []], "n": [1, 2]}), tmp_path / "x.csv")
    lines = (tmp_path / "x.csv").read_text().splitlines()
    assert lines[:2] == ["layers,n", "0 1 2,1"]
    assert lines[2].split(",")[1] == "2"


def test_a_text_is_never_a_formula(tmp_path: Path) -> None:
    texts = ["=1+1", "+1", "-1", "@x", "\tx", "safe", ""]
    write_csv(pl.DataFrame({"text": texts, "number": [-1.5] * 7, "list": [[-1.0]] * 7}), tmp_path / "x.csv")
    again = pl.read_csv(tmp_path / "x.csv")
    assert again["text"].fill_null("").to_list() == ["'=1+1", "'+1", "'-1", "'@x", "'\tx", "safe", ""]
    assert again["number"].to_list() == [-1.5] * 7
    assert again["list"].to_list() == [-1.0] * 7
