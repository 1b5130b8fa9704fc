"""The results that this project publishes: for a search space, a folder of published trials with its name."""

from __future__ import annotations

from pathlib import Path

# A wheel contains them in the package, a checkout in ``artifacts``.
_FOLDERS = (
    Path(__file__).parents[1] / "reference",
    Path(__file__).parents[2] / "artifacts" / "reference",
)


def reference_of(space: str) -> Path | None:
    """The published results of a search space; None if there are none."""
    return next((root / space for root in _FOLDERS if (root / space).is_dir()), None)
