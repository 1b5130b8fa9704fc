"""GPUs that a machine lacks: what torch would say of them, for all Python processes with a folder on their path."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

# In place of `reproduce.run.gpus`.
_FINDER = """
import importlib.util, pathlib, sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "reproduce.run.gpus":
            return importlib.util.spec_from_file_location(name, pathlib.Path(__file__).with_name("stand_in.py"))
sys.meta_path.insert(0, Finder)
"""
_STAND_IN = """
import json, pathlib
def usable_gpus():
    return [tuple(gpu) for gpu in json.loads(pathlib.Path(__file__).with_name("gpus.json").read_text())]
if __name__ == "__main__":
    print(json.dumps(usable_gpus()))
"""


def stand_in(folder: Path, gpus: Sequence[tuple[str, int, str]]) -> None:
    """Let processes with the folder on their path find these GPUs: model, bytes, identifier; may be called again."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_FINDER)
    (folder / "stand_in.py").write_text(_STAND_IN)
    (folder / "gpus.json").write_text(json.dumps(list(gpus)))
