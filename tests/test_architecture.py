"""The rules of the house: who may import whom, no cycles, modules of one idea."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("lfreeze", "reproduce")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def imports(module: str) -> set[str]:
    """Every module that a module imports, at the top or inside a function; not for type checking alone."""
    found: set[str] = set()
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            nested = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (nested & set(MODULES)) or {node.module}
    return found


def test_the_library_knows_nothing_of_the_experiment() -> None:
    for module in MODULES:
        if module.startswith("lfreeze"):
            roots = {name.split(".")[0] for name in imports(module)}
            assert not roots & {"ray", "reproduce", "polars"}, module


def test_the_report_lives_on_files_alone() -> None:
    code = (
        "import sys, reproduce.report, reproduce.store.parquet\n"
        "print([m for m in ('torch', 'transformers', 'peft', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_module_imports_itself_by_a_detour() -> None:
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
