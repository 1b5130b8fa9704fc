"""What is installed from elsewhere: pinned wherever it is named, and listed with its licence."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.test_project_files import ROOT, WORKFLOWS, script

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
ACTION = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
LICENCE_TABLE = re.compile(r"<!-- table: packages -->\n(.*?)\n<!-- end -->", re.DOTALL)


def locked(lock: Path) -> set[tuple[str, str, str]]:
    """Name, version and lock of each entry, read as pip reads a requirement."""
    lines = [line.rstrip("\\ ") for line in lock.read_text("utf-8").splitlines() if line[:1].isalnum()]
    entries = set()
    for requirement in map(Requirement, lines):
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        entries.add((requirement.name, specifier.version, lock.stem))
    return entries


def test_every_locked_package_is_listed_with_its_licence() -> None:
    match = LICENCE_TABLE.search((ROOT / "docs" / "licences.md").read_text("utf-8"))
    assert match is not None
    rows = [line.strip("| ").split(" | ") for line in match[1].splitlines()[2:]]
    assert all(licence not in ("", "UNKNOWN") for _, _, licence, _ in rows)
    listed = {(name, version, lock) for name, version, _, locks in rows for lock in locks.split(", ")}
    assert [lock.stem for lock in LOCKS] == ["base", "build", "cpu", "cuda", "tools"]
    assert listed == set().union(*map(locked, LOCKS))


def test_the_licence_is_that_of_the_packages_metadata() -> None:
    licence = script("licences", folder="requirements").licence
    assert licence({"license_expression": "MIT", "license": "other"}) == "MIT"
    old = {"license": "BSD", "classifier": ["License :: OSI Approved :: BSD License", "Topic :: X"]}
    assert licence(old) == "BSD; BSD License"
    assert licence({"license": "UNKNOWN", "classifier": ["License :: OSI Approved :: ISC License"]}) == (
        "ISC License"
    )
    assert licence({"license": "Permission is hereby granted,\nfree of charge"}) == "not stated"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_locked_package_has_hashes(lock: Path) -> None:
    entries = re.split(r"\n(?=\S)", lock.read_text("utf-8").strip())
    assert [e.splitlines()[0] for e in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}", e)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_name_actions_by_their_commits(path: Path) -> None:
    used = re.findall(r"\buses: *(.+)", path.read_text("utf-8"))
    assert used
    assert [name for name in used if not ACTION.fullmatch(name)] == []
    machines = [job["runs-on"] for job in yaml.safe_load(path.read_text("utf-8"))["jobs"].values()]
    assert [machine for machine in machines if machine.endswith("latest")] == []


def test_one_version_of_an_action_is_one_commit() -> None:
    used = {name for path in WORKFLOWS for name in re.findall(r"\buses: *(.+)", path.read_text("utf-8"))}
    versions = [(name.partition("@")[0], name.rpartition(" ")[2]) for name in used]
    assert len(set(versions)) == len(used)


def test_the_image_installs_nothing_that_is_not_pinned() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    assert re.search(r"^ARG BASE_IMAGE=\S+@sha256:[0-9a-f]{64}$", text, re.M)
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", text, re.M)
    assert len(stages) == text.count("\nFROM ")
    made = {"${BASE_IMAGE}"}
    for base, stage in stages:
        assert base in made
        made.add(stage)
    installs = re.findall(r"pip install\b.*?(?=&&|\nRUN|\nFROM|\n\n)", text, re.DOTALL)
    assert len(installs) == 4
    assert [i for i in installs if "--require-hashes" not in i and "--no-index" not in i] == []


def test_the_nightly_audits_every_lock() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/nightly.yml").read_text("utf-8"))["jobs"]
    audited = jobs["vulnerabilities"]["strategy"]["matrix"]["lock"]
    # The CPU build of torch is the release that cuda.txt names.
    assert sorted([*audited, "cpu"]) == [lock.stem for lock in LOCKS]
    assert any("pip_audit" in step.get("run", "") for step in jobs["vulnerabilities"]["steps"])


def test_the_nightly_runs_both_ends_of_the_bounds() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    constraints = {r.name: r.specifier for r in map(Requirement, script("bounds").oldest(text))}
    assert list(constraints) == ["torch", "transformers", "ray", "polars", "peft"]
    project = tomllib.loads(text)["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["reproduce"]]
    bounds = {r.name: r.specifier for r in map(Requirement, wanted)}
    for name, constraint in constraints.items():
        (lowest,) = constraint
        assert bounds[name].contains(lowest.version)
        (bound,) = [each.version for each in bounds[name] if each.operator == ">="]
        assert bound == lowest.version
    jobs = yaml.safe_load((ROOT / ".github/workflows/nightly.yml").read_text("utf-8"))["jobs"]
    matrix = jobs["both-ends"]["strategy"]["matrix"]
    assert matrix["releases"] == ["Oldest", "Newest"]
    assert f">={matrix['python'][0]}" == project["requires-python"]


def test_a_library_without_one_lower_bound_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 lower bounds of 'torch'"):
        script("bounds").oldest("[project]\ndependencies = ['torch<3']\n[project.optional-dependencies]\n")
