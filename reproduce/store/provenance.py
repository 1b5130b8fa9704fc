"""The code, software and hardware that produce a trial's numbers, as columns of its row.

They contain no host name, user name, token or absolute path.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TypedDict

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

# In them, git names the repository of a hook to what the hook starts.
_HOOK_VARIABLES = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"}


class Software(TypedDict):
    """Versions of the code and of the packages that it uses."""

    git_commit: str | None
    git_dirty: bool | None
    image_digest: str | None
    lfreeze_version: str
    python_version: str
    torch_version: str | None
    transformers_version: str | None
    peft_version: str | None
    ray_version: str | None
    package_versions_json: str
    platform: str


class Hardware(TypedDict):
    """The processor, the GPU of a trial that runs on one, and whether only deterministic algorithms run."""

    device: str
    cpu_model: str
    cuda_version: str | None
    cudnn_version: str | None
    driver_version: str | None
    gpu_name: str | None
    gpu_memory_bytes: int | None
    deterministic_algorithms: bool


@functools.cache
def software() -> Software:
    """Versions of the code and of the packages that it uses."""
    versions = {name: _version(name) for name in _PACKAGES}
    commit, dirty = code_commit()
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


def other_packages(theirs: str, mine: str) -> str | None:
    """The packages whose versions differ between two ``package_versions_json``; None if none does.

    Builds of one version, such as torch's for the CPU and for CUDA, are the same.
    """
    sides = [{name: v.partition("+")[0] for name, v in json.loads(text).items()} for text in (theirs, mine)]
    texts = [
        f"{name} {sides[0].get(name, 'none')} there, {sides[1].get(name, 'none')} here"
        for name in sorted({*sides[0], *sides[1]})
        if sides[0].get(name) != sides[1].get(name)
    ]
    return ", ".join(texts) or None


def version() -> str:
    """The version and the commit of this code, as ``0.2.0 (commit 0123456789ab, with changes)``."""
    number, (commit, dirty) = _version("lfreeze") or "unknown", code_commit()
    if commit is None:
        return f"{number} (commit not known)"
    return f"{number} (commit {commit[:12]}{', with changes' if dirty else ''})"


def hardware(device_type: str) -> Hardware:
    """The processor, and the current GPU if ``device_type`` is ``cuda``."""
    import torch

    values: Hardware = {
        "device": device_type,
        "cpu_model": _cpu_model(),
        "cuda_version": None,
        "cudnn_version": None,
        "driver_version": None,
        "gpu_name": None,
        "gpu_memory_bytes": None,
        # With warnings only, torch keeps algorithms that are not deterministic.
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled()
        and not torch.is_deterministic_algorithms_warn_only_enabled(),
    }
    if device_type == "cuda":
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        values["cuda_version"] = torch.version.cuda
        values["cudnn_version"] = str(torch.backends.cudnn.version())
        values["driver_version"] = driver_version()
        values["gpu_name"] = properties.name
        values["gpu_memory_bytes"] = properties.total_memory
    return values


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def code_commit(package: Path = Path(__file__).parents[1]) -> tuple[str | None, bool | None]:
    """The commit of the code in a folder ``reproduce``, and whether the code differs from it; None if unknown.

    A wheel contains the commit that it was built from; in a checkout, git knows it.
    """
    built = package / "commit.json"
    if built.is_file():
        values = json.loads(built.read_text("utf-8"))
        return values["commit"], values["dirty"]
    top = package.parent
    # Not the commit of a repository that the code merely lies in.
    if not (top / ".git").exists():
        return None, None
    commit = _git(top, "rev-parse", "HEAD")
    changes = _git(top, "status", "--porcelain", "--", "lfreeze", "reproduce", "search_spaces")
    return commit, None if changes is None else bool(changes)


@functools.cache
def driver_version() -> str | None:
    """The NVIDIA driver's version; None without the driver or its Python binding."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        try:
            return str(pynvml.nvmlSystemGetDriverVersion())
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None


@functools.cache
def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _git(top: Path, *arguments: str) -> str | None:
    environment = {name: value for name, value in os.environ.items() if name not in _HOOK_VARIABLES}
    try:
        done = subprocess.run(
            ["git", "-C", str(top), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            env=environment,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
