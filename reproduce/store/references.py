"""What this project publishes beside its code: reference results of search spaces, and the paper's claims."""

from __future__ import annotations

from pathlib import Path

# A wheel contains them in the package, a checkout in ``artifacts``.
_FOLDERS = (
    Path(__file__).parents[1] / "reference",
    Path(__file__).parents[2] / "artifacts" / "reference",
)


def reference_path(name: str) -> Path | None:
    """The published file or folder of this name, such as the results of a search space; None if there is none."""
    return next((root / name for root in _FOLDERS if (root / name).exists()), None)
