"""Remove the upper bound of a dependency from pyproject.toml: ``python .github/remove_upper_bound.py ray``."""

from __future__ import annotations

import re
import sys
from pathlib import Path


def without_upper_bound(text: str, package: str) -> str:
    """The text of pyproject.toml with the package's requirements freed of ``,<...``.

    Raises:
        ValueError: no requirement of the package has an upper bound.
    """
    bounded = re.compile(rf'("{re.escape(package)}(?:\[[^]]*\])?>=[^,"]+),<[^"]+"')
    text, count = bounded.subn(r'\1"', text)
    if not count:
        raise ValueError(f"pyproject.toml has no requirement {package!r} with an upper bound")
    return text


if __name__ == "__main__":
    project = Path("pyproject.toml")
    try:
        project.write_text(without_upper_bound(project.read_text("utf-8"), sys.argv[1]), "utf-8")
    except ValueError as error:
        sys.exit(str(error))
