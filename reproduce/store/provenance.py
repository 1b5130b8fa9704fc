"""Where a trial's numbers come from: code, software and hardware, as columns of its row.

No host name, user name, token or absolute path is among them.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = (
    "accelerate",
    "huggingface_hub",
    "numpy",
    "peft",
    "polars",
    "pyarrow",
    "ray",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
)


@functools.cache
def software() -> dict[str, Any]:
    """Versions of the code and of what it runs on."""
    versions = {name: _version(name) for name in _PACKAGES}
    commit, dirty = _git()
    return {
        "git_commit": commit,
        "git_dirty": dirty,
        "image_digest": os.environ.get("LFREEZE_IMAGE_DIGEST"),
        "lfreeze_version": _version("lfreeze") or "unknown",
        "python_version": platform.python_version(),
        "torch_version": versions["torch"],
        "transformers_version": versions["transformers"],
        "peft_version": versions["peft"],
        "ray_version": versions["ray"],
        "package_versions_json": json.dumps({k: v for k, v in versions.items() if v}, sort_keys=True),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def hardware(device_type: str) -> dict[str, Any]:
    """The processor, and the GPU if the trial runs on one."""
    import torch

    columns: dict[str, Any] = {
        "device": device_type,
        "cpu_model": _cpu_model(),
        "cuda_version": None,
        "cudnn_version": None,
        "driver_version": None,
        "gpu_name": None,
        "gpu_memory_bytes": None,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
    }
    if device_type == "cuda":
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        columns |= {
            "cuda_version": torch.version.cuda,
            "cudnn_version": str(torch.backends.cudnn.version()),
            "driver_version": _driver_version(),
            "gpu_name": properties.name,
            "gpu_memory_bytes": properties.total_memory,
        }
    return columns


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git() -> tuple[str | None, bool | None]:
    """The commit that this code is of, and whether its files differ from it.

    A wheel carries the commit that it was built from; a checkout is asked.
    """
    built = Path(__file__).parents[1] / "commit.json"
    if built.is_file():
        values = json.loads(built.read_text("utf-8"))
        return values["commit"], values["dirty"]
    top = Path(__file__).parents[2]
    if not (top / ".git").exists():
        return None, None
    commit = _output("git", "-C", str(top), "rev-parse", "HEAD")
    changes = _output(
        "git", "-C", str(top), "status", "--porcelain", "--", "lfreeze", "reproduce", "search_spaces"
    )
    return commit, None if changes is None else bool(changes)


@functools.cache
def _driver_version() -> str | None:
    listed = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return listed.splitlines()[0] if listed else None


@functools.cache
def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
