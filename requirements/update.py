"""Writes the locks that the container installs: every package with the hashes of its files.

    pip install uv && python requirements/update.py && python requirements/licences.py

``base.txt`` is everything but torch; ``cuda.txt`` is torch with the CUDA libraries that it brings;
``cpu.txt`` is torch's CPU build, whose hashes come from PyTorch's own index and are kept here; ``build.txt``
builds the project's wheel; ``tools.txt`` writes the bill of materials and looks for known vulnerabilities. They are valid for CPython 3.11 and newer on Linux.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

_HERE = Path(__file__).parent
_TORCH = "2.13.0"
# Of torch-2.13.0+cpu-cp3XX-cp3XX-manylinux_2_28_x86_64.whl, by Python's version.
_CPU_HASHES = {
    "3.11": "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
    "3.12": "4ca4a9394b0c771238a4f73590fdbbc4debad85ed0fa63d026ae1b085da7d6e2",
}
_CUDA = re.compile(r"(torch|triton|nvidia-(?!ml-py)[\w-]+|cuda-[\w-]+)==")


def main() -> None:
    everything = _locked((_HERE.parent / "pyproject.toml").read_text("utf-8"), "pyproject.toml")
    cuda = [entry for entry in everything if _CUDA.match(entry)]
    (_HERE / "base.txt").write_text("\n".join(e for e in everything if e not in cuda) + "\n", "utf-8")
    (_HERE / "cuda.txt").write_text("\n".join(cuda) + "\n", "utf-8")
    hashes = " \\\n".join(f"    --hash=sha256:{value}" for value in _CPU_HASHES.values())
    (_HERE / "cpu.txt").write_text(f"torch=={_TORCH}+cpu \\\n{hashes}\n", "utf-8")
    for name, wanted in (("build", "hatchling\n"), ("tools", "cyclonedx-bom\npip-audit\n")):
        entries = _locked(wanted, "requirements.in")
        (_HERE / f"{name}.txt").write_text("\n".join(entries) + "\n", "utf-8")


def _locked(wanted: str, name: str) -> list[str]:
    """One entry a package: its version, its condition, its hashes."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_text(wanted, "utf-8")
        (Path(folder) / "constraints.txt").write_text(f"torch=={_TORCH}\n", "utf-8")
        extra = ["--extra", "reproduce"] if name == "pyproject.toml" else []
        options = [*extra, "--universal", "--python-version", "3.11", "--generate-hashes", "--no-annotate"]
        command = ["uv", "pip", "compile", "--quiet", "--no-header", *options, "-c", "constraints.txt", name]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return re.split(r"\n(?=\S)", done.stdout.strip())


if __name__ == "__main__":
    main()
