"""Writes the commit that a wheel is built from into it, so that its trials can name their code."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# In them, git names the repository of a hook to what the hook starts.
_HOOK_VARIABLES = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"}


class CommitHook(BuildHookInterface):  # type: ignore[misc]
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        # Where there is no checkout, as in a container's build, the builder says it.
        described = os.environ.get("LFREEZE_COMMIT", "")
        commit, changes = described.removesuffix("-dirty"), described.endswith("-dirty")
        if not commit:
            found = self._git("rev-parse", "HEAD")
            if found is None:
                return
            commit = found
            changes = bool(self._git("status", "--porcelain", "--", "lfreeze", "reproduce", "search_spaces"))
        folder = Path(tempfile.mkdtemp())
        (folder / "commit.json").write_text(json.dumps({"commit": commit, "dirty": changes}), "utf-8")
        build_data["force_include"][str(folder / "commit.json")] = "reproduce/commit.json"

    def _git(self, *arguments: str) -> str | None:
        # An unpacked archive may lie in another repository.
        if not (Path(self.root) / ".git").exists():
            return None
        environment = {name: value for name, value in os.environ.items() if name not in _HOOK_VARIABLES}
        try:
            done = subprocess.run(
                ["git", "-C", self.root, *arguments],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
                env=environment,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()
