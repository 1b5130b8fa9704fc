"""Rules of the code's structure; who may import whom is in pyproject.toml, as contracts of import-linter."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from lfreeze.strategy import kinds

ROOT = Path(__file__).parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("lfreeze", "reproduce")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def imports(module: str) -> set[str]:
    """Every module that a module imports, at the top, inside a function, or for type checking alone."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            nested = {f"{node.module}.{alias.name}" for alias in node.names}
            imported |= (nested & set(MODULES)) or {node.module}
    return imported


def test_the_import_contracts_are_kept() -> None:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_report_reads_files_and_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys, reproduce.report, reproduce.store.parquet, reproduce.verify, lfreeze.strategy; lfreeze.strategy.kinds()\n"
        "print([m for m in ('torch', 'transformers', 'peft', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: imports(module) & set(MODULES) for module in MODULES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for target in sorted(graph[module]):
                visit(target, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", sorted(MODULES))
def test_modules_stay_short(module: str) -> None:
    assert len(MODULES[module].read_text("utf-8").splitlines()) <= 300


def test_no_file_runs_what_it_should_only_read() -> None:
    for module, path in MODULES.items():
        text = path.read_text("utf-8")
        for phrase in ("trust_remote" + "_code", "pickle.load", "weights_only=False", "shell=True"):
            assert phrase not in text, module


LABELS = tuple(kind.label for kind in kinds().values())


@pytest.mark.parametrize("module", [m for m in sorted(MODULES) if not m.startswith("lfreeze.kinds")])
def test_no_module_outside_kinds_compares_a_label(module: str) -> None:
    """What distinguishes an arm is a method or attribute of its kind."""
    compared = [
        f"line {node.lineno}: {constant.value}"
        for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8")))
        if isinstance(node, ast.Compare | ast.match_case) or _is_prefix_test(node)
        for constant in ast.walk(node.pattern if isinstance(node, ast.match_case) else node)
        if isinstance(constant, ast.Constant) and constant.value in LABELS
    ]
    assert not compared


def _is_prefix_test(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("startswith", "starts_with", "is_in")
    )


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_module_uses_a_private_name_of_another(module: str) -> None:
    private = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("lfreeze", "reproduce")
        for alias in node.names
        if alias.name.startswith("_")
    ]
    assert not private


def test_the_lock_holds_every_dependency_within_its_bounds() -> None:
    """The image installs from the lock with --no-deps, so that a missing entry would show only there."""
    locked: dict[str, list[str]] = {}
    for name in ("base", "cuda", "cpu"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
        for package, version in re.findall(r"^([\w.-]+)==([^\s;+]+)", text, re.MULTILINE):
            locked.setdefault(package, []).append(version)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for text in (*project["dependencies"], *project["optional-dependencies"]["reproduce"]):
        requirement = Requirement(text)
        assert requirement.name in locked, text
        for version in locked[requirement.name]:
            assert requirement.specifier.contains(version), f"{text}: {version} is locked"
