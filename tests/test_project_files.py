"""Files for those who work on the project: workflows, hooks, citation, release check."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def assert_valid(schema: str, *paths: Path) -> None:
    """Check files against a schema that check-jsonschema brings along, without the network."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def script(name: str, folder: str = ".github") -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_workflows_follow_their_schema() -> None:
    assert [path.stem for path in WORKFLOWS] == ["nightly", "pull-request", "release"]
    assert_valid("vendor.github-workflows", *WORKFLOWS)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_files_that_a_workflow_runs_exist(path: Path) -> None:
    for name in re.findall(r"(?:\.github/\w+\.py|\.ci/\w+)", path.read_text("utf-8")):
        assert (ROOT / name).is_file()


def test_a_pull_request_passes_the_checks_of_the_hooks() -> None:
    runs = [
        step["run"]
        for job in read(ROOT / ".github/workflows/pull-request.yml")["jobs"].values()
        for step in job["steps"]
        if "run" in step
    ]
    for command in (
        "ruff check",
        "ruff format",
        "mypy",
        "lint-imports",
        "mkdocs build --strict",
        "-m pytest",
    ):
        assert any(command in run for run in runs), command


def test_the_hooks_are_local_and_run_installed_tools() -> None:
    (local,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    hooks = {hook["id"]: hook for hook in local["hooks"]}
    assert list(hooks) == ["ruff-check", "ruff-format", "mypy", "lint-imports"]
    for hook in hooks.values():
        assert hook["language"] == "system"
        assert {"id", "name", "entry"} <= set(hook)
        assert Path(sys.executable).with_name(hook["entry"].split()[0]).exists()


def test_the_citation_names_the_journal_version() -> None:
    path = ROOT / "CITATION.cff"
    assert_valid("vendor.citation-file-format", path)
    citation = read(path)
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == PROJECT["project"]["version"]
    article = citation["preferred-citation"]
    assert [author["family-names"] for author in article["authors"]] == ["Hwang", "Seo", "Jung", "Jung"]
    assert {name: article[name] for name in article if name not in ("authors", "title")} == {
        "type": "article",
        "journal": "Applied Sciences",
        "volume": 15,
        "issue": 19,
        "start": 10434,
        "year": 2025,
        "doi": "10.3390/app151910434",
    }


def test_contributing_names_every_marker() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    for marker in PROJECT["tool"]["pytest"]["ini_options"]["markers"]:
        assert f"`{marker.partition(':')[0]}`" in text


@pytest.mark.parametrize("package", ["torch", "transformers", "ray"])
def test_the_nightly_removes_upper_bounds(package: str) -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    free = script("remove_upper_bound").without_upper_bound(text, package)
    changed = [line for line, old in zip(free.splitlines(), text.splitlines(), strict=True) if line != old]
    assert len(changed) == 1
    assert re.fullmatch(rf'  "{package}(\[[\w,]+\])?>=[\d.]+",', changed[0])
    assert package in read(ROOT / ".github/workflows/nightly.yml")["jobs"]["newest-releases"]["strategy"]["matrix"]["library"]  # fmt: skip


def test_a_package_without_an_upper_bound_is_an_error() -> None:
    with pytest.raises(ValueError, match="no requirement 'rich' with an upper bound"):
        script("remove_upper_bound").without_upper_bound('"rich>=13"', "rich")


class Repository:
    """A git repository with the files that a release check reads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.git("init", "--quiet")

    def git(self, *arguments: str) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@localhost")
        subprocess.run(["git", "-C", self.root, *identity, *arguments], check=True, capture_output=True)

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text, "utf-8")

    def release(
        self, version: str, *, numerics: int = 1, schema: int = 2, tag: str | None = None
    ) -> list[str]:
        """The problems of a release whose files have this version."""
        self.write("pyproject.toml", f'[project]\nversion = "{version}"\n')
        self.write("CITATION.cff", f"version: {version}\n")
        self.write("CHANGELOG.md", f"# Changelog\n\n## {version}\n")
        for package in ("reproduce", "reproduce/plan", "reproduce/store"):
            self.write(f"{package}/__init__.py", "")
        self.write("reproduce/plan/spec.py", f"NUMERICS = {numerics}\n")
        self.write("reproduce/store/trial_row.py", f"SCHEMA_VERSION = max([1, {schema}])\n")
        return self.check(tag or f"v{version}")

    def check(self, tag: str) -> list[str]:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", tag)
        self.git("tag", "--force", tag)
        problems: list[str] = script("check_release").problems(self.root, tag)
        return problems


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_a_first_release_and_an_unchanged_patch_pass(repository: Repository) -> None:
    assert repository.release("0.9.0") == []
    assert repository.release("0.9.1") == []
    assert repository.release("0.10.0", numerics=2, schema=3) == []
    assert repository.release("1.0.0", schema=4) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"numerics": 2}, "NUMERICS from 1 to 2 changed since v0.9.0"),
        ({"schema": 3}, "SCHEMA_VERSION from 2 to 3 changed since v0.9.0"),
    ],
)
def test_a_patch_may_change_neither_numbers_nor_schema(
    repository: Repository, change: dict[str, int], sentence: str
) -> None:
    repository.release("0.9.0")
    (problem,) = repository.release("0.9.1", **change)
    assert problem == f"{sentence}, so the minor version must be higher than in v0.9.0"


def test_an_older_release_without_the_numbers_counts_as_changed(repository: Repository) -> None:
    repository.write("README.md", "older code")
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--message", "older")
    repository.git("tag", "v0.9.0")
    (problem,) = repository.release("0.9.1")
    assert "NUMERICS from an unknown value to 1" in problem
    repository.git("tag", "--delete", "v0.9.1")
    assert repository.release("0.10.0") == []


def test_the_tag_is_the_version_of_every_file(repository: Repository) -> None:
    assert repository.release("0.9.0", tag="v0.9.1") == [
        "the tag is v0.9.1, but the version in pyproject.toml is 0.9.0",
        "the tag is v0.9.1, but the version in CITATION.cff is 0.9.0",
        "CHANGELOG.md has no section 0.9.1",
    ]
    assert repository.release("0.9.0", tag="0.9.0") == ["the tag '0.9.0' is not of the form v1.2.3"]
