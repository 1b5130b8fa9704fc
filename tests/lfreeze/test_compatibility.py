"""The tables of docs/compatibility.md are what the code does today."""

from __future__ import annotations

from tests.support.compatibility import PAGE, architecture_table, replace_table


def test_the_table_of_architectures_is_current() -> None:
    table, page = architecture_table(), PAGE.read_text("utf-8")
    assert "wrong" not in table
    assert replace_table(page, "architectures", table) == page
