"""TOML from files that other people wrote: every fault of its text is one type of error."""

from __future__ import annotations

import re
import tomllib
from typing import Any

# The standard library needs time that grows with the square of a key's parts.
_MOST_PARTS = 100


def parse_toml(content: bytes) -> dict[str, Any]:
    """The values of a TOML file.

    Raises:
        ValueError: it is not UTF-8 or not TOML, is nested too deeply, or has an integer of thousands of digits
            or a key of more than a hundred parts.
    """
    text = content.decode()
    # Wherever a key can begin and end.
    if any(piece.count(".") >= _MOST_PARTS for piece in re.split(r"[={},\[\]\n]", text)):
        raise ValueError(f"a key has more than {_MOST_PARTS} parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
