"""Constraints for one end of the bounds in pyproject.toml: ``python .github/bounds.py Oldest > bounds.txt``.

``Oldest`` gives the lowest release that pyproject.toml admits of each library whose releases change the most;
``Newest`` gives none, so that pip takes the newest release within the bounds.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

LIBRARIES = ("torch", "transformers", "ray", "polars", "peft")


def oldest(text: str) -> list[str]:
    """One constraint for each library, from the text of pyproject.toml.

    Raises:
        ValueError: a library has no lower bound.
    """
    project = tomllib.loads(text)["project"]
    extras = [wanted for extra in project["optional-dependencies"].values() for wanted in extra]
    constraints = []
    for library in LIBRARIES:
        bound = re.compile(rf"{library}(?:\[[^]]*\])?>=([\d.]+)")
        found = {match[1] for wanted in [*project["dependencies"], *extras] if (match := bound.match(wanted))}
        if len(found) != 1:
            raise ValueError(f"pyproject.toml has {len(found)} lower bounds of {library!r}, not one")
        constraints.append(f"{library}=={found.pop()}")
    return constraints


if __name__ == "__main__":
    if sys.argv[1:] not in (["Oldest"], ["Newest"]):
        sys.exit("usage: python .github/bounds.py Oldest|Newest")
    print("\n".join(oldest(Path("pyproject.toml").read_text("utf-8")) if sys.argv[1] == "Oldest" else []))
