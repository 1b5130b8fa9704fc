"""Check a release: ``python .github/check_release.py v0.2.0``, in a checkout of the tag with all tags.

The tag is the version of pyproject.toml and CITATION.cff, CHANGELOG.md has a section of it, and the minor
(or major) version is higher than the last release's where the schema or the numbers changed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

# Run in a checkout, because the schema's version is computed from the columns. The files' paths show
# whether the checkout has these modules or Python imported an installed package's.
_READ = """
import json
from reproduce.plan import spec
from reproduce.store import trial_row
numbers = {"NUMERICS": spec.NUMERICS, "SCHEMA_VERSION": trial_row.SCHEMA_VERSION}
print(json.dumps([numbers, spec.__file__, trial_row.__file__]))
"""
_TAG = re.compile(r"v(\d+)\.(\d+)\.(\d+)")


def problems(root: Path, tag: str) -> list[str]:
    """What forbids the release of the checkout ``root`` under ``tag``, one sentence each."""
    if not _TAG.fullmatch(tag):
        return [f"the tag {tag!r} is not of the form v1.2.3"]
    version = tag.removeprefix("v")
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    citation = re.search(r"^version: *\"?([^\"\n]+)", (root / "CITATION.cff").read_text("utf-8"), re.M)
    result = []
    if project != version:
        result.append(f"the tag is {tag}, but the version in pyproject.toml is {project}")
    if citation is None or citation[1] != version:
        result.append(f"the tag is {tag}, but the version in CITATION.cff is {citation and citation[1]}")
    if not re.search(rf"^## \[?{re.escape(version)}\b", (root / "CHANGELOG.md").read_text("utf-8"), re.M):
        result.append(f"CHANGELOG.md has no section {version}")
    last = last_release(root, tag)
    if last is None:
        return result
    with tempfile.TemporaryDirectory() as scratch:
        archive = subprocess.run(["git", "-C", root, "archive", last], check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", scratch], input=archive, check=True)
        before, now = numbers_of(Path(scratch)), numbers_of(root)
    if not now:
        return [
            *result,
            "NUMERICS and SCHEMA_VERSION cannot be imported: install the package with its extra reproduce",
        ]
    changed = [
        f"{name} from {before.get(name, 'an unknown value')} to {value}"
        for name, value in now.items()
        if value != before.get(name)
    ]
    if changed and _parts(tag)[:2] <= _parts(last)[:2]:
        result.append(
            f"{' and '.join(changed)} changed since {last}, so the minor version must be higher than in {last}"
        )
    return result


def last_release(root: Path, tag: str) -> str | None:
    """The highest release tag below ``tag``."""
    tags = subprocess.run(
        ["git", "-C", root, "tag"], check=True, capture_output=True, text=True
    ).stdout.split()
    return max((t for t in tags if _TAG.fullmatch(t) and _parts(t) < _parts(tag)), key=_parts, default=None)


def numbers_of(tree: Path) -> dict[str, int]:
    """NUMERICS and SCHEMA_VERSION of the code in a folder; empty for code older than these two names."""
    done = subprocess.run(
        [sys.executable, "-c", _READ],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree.resolve())},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return {}
    numbers, *files = json.loads(done.stdout)
    return numbers if all(Path(file).is_relative_to(tree.resolve()) for file in files) else {}


def _parts(tag: str) -> tuple[int, ...]:
    return tuple(int(part) for part in tag.removeprefix("v").split("."))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python .github/check_release.py TAG")
    reasons = problems(Path.cwd(), sys.argv[1])
    sys.exit("\n".join(reasons) or 0)
