"""The tables of docs/compatibility.md are what the code does today."""

from __future__ import annotations

import pytest

from tests.support.compatibility import PAGE, TABLES, replace_table


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_current(name: str) -> None:
    table, page = TABLES[name](), PAGE.read_text("utf-8")
    assert "wrong" not in table
    assert "lost" not in table
    assert table in page
    assert replace_table(page, name, table) == page
