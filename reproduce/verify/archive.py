"""Checks the files of published folders against their descriptions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from reproduce.store.crate import CRATE_FILE, crate_faults
from reproduce.verify.differences import LISTED
from reproduce.verify.numbers import Check


def archived(folders: Iterable[Path]) -> list[Check]:
    """Whether every file has the checksum that the folder's RO-Crate names; nothing for folders without one."""
    faults = {folder: crate_faults(folder) for folder in folders}
    described = {folder: found for folder, found in faults.items() if found is not None}
    if not described:
        return []
    details = [f"{folder}: {fault}" for folder, found in described.items() for fault in found]
    whole = sum(not found for found in described.values())
    sentence = f"of {len(described)} folders with a {CRATE_FILE}, {whole} have the files that it describes"
    return [Check("archive", not details, sentence, tuple(details[:LISTED]))]
