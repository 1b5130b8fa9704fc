"""Writes the table of docs/licences.md: every locked package, its version and its licence.

    pip install --upgrade pip && python requirements/licences.py

The licences are those of the packages' own metadata, which pip reads from the index without installing anything.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
PAGE = _HERE.parent / "docs" / "licences.md"
LOCKS = ("base", "cuda", "cpu", "build", "tools")
_ENTRY = re.compile(r"^([\w.-]+)==([^\s;\\]+)", re.M)
# Where a lock has two versions of a package, the later one is for Python 3.12 and newer.
_PYTHON = "3.12"
_LONGEST = 80

Package = tuple[str, str]


def locked() -> dict[Package, list[str]]:
    """The locks that hold each package, by its name and version."""
    packages: dict[Package, list[str]] = {}
    for lock in LOCKS:
        for name, version in _ENTRY.findall((_HERE / f"{lock}.txt").read_text("utf-8")):
            packages.setdefault((name, version), []).append(lock)
    return dict(sorted(packages.items()))


def licence(metadata: Mapping[str, Any]) -> str:
    """What a package's metadata says: its SPDX expression, or what the fields before there was one say."""
    if expression := metadata.get("license_expression"):
        return str(expression)
    text = str(metadata.get("license") or "").strip()
    # Some packages have the whole text there.
    said = [text] if text not in ("", "UNKNOWN") and "\n" not in text and len(text) <= _LONGEST else []
    for classifier in metadata.get("classifier", []):
        if classifier.startswith("License :: "):
            said.append(classifier.rpartition(" :: ")[2])
    return "; ".join(dict.fromkeys(said)) or "not stated"


def table(packages: Mapping[Package, list[str]], licences: Mapping[Package, str]) -> str:
    rows = [
        f"| {name} | {version} | {licences[_public(name, version)].replace('|', '/')} | {', '.join(locks)} |"
        for (name, version), locks in packages.items()
    ]
    return "\n".join(["| package | version | licence | lock |", "|---|---|---|---|", *rows])


def _public(name: str, version: str) -> Package:
    """A build such as ``+cpu`` is on another index than the release that it is made from."""
    return name, version.partition("+")[0]


def _licences(packages: Iterable[Package]) -> dict[Package, str]:
    rest = list(dict.fromkeys(_public(*package) for package in packages))
    found: dict[Package, str] = {}
    while rest:
        # pip takes one version of a package at a time.
        batch = dict(reversed(rest))
        metadata = _metadata(batch)
        found |= {item: licence(metadata[item[0]]) for item in batch.items()}
        rest = [package for package in rest if package not in found]
    return found


def _metadata(batch: Mapping[str, str]) -> dict[str, Mapping[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        report, wanted = Path(folder) / "report.json", Path(folder) / "wanted.txt"
        wanted.write_text("\n".join("==".join(item) for item in batch.items()), "utf-8")
        # With --target, pip takes the wheels of another version of Python than its own.
        options = ["--dry-run", "--no-deps", "--ignore-installed", "--only-binary=:all:", "--target", folder]
        options += ["--python-version", _PYTHON, "--report", str(report), "-r", str(wanted)]
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *options], check=True)
        installs = json.loads(report.read_text("utf-8"))["install"]
    return {_normal(entry["metadata"]["name"]): entry["metadata"] for entry in installs}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    packages = locked()
    text = re.sub(
        r"(<!-- table: packages -->\n).*?(<!-- end -->)",
        lambda m: m[1] + table(packages, _licences(packages)) + "\n" + m[2],
        PAGE.read_text("utf-8"),
        flags=re.DOTALL,
    )
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
