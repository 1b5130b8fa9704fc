"""The command where the experiment's dependencies are not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REFERENCE = Path(__file__).parents[2] / "artifacts" / "reference" / "embedded"
SLOW = ("torch", "transformers", "peft", "datasets", "ray", "matplotlib", "scipy")


def run_without(*packages: str) -> subprocess.CompletedProcess[str]:
    """``reproduce --version`` in a process that cannot import these packages."""
    code = (
        "import sys\n"
        "class Absent:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {packages!r}: raise ModuleNotFoundError(name)\n"
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *a: None if name in {packages!r} else find(name, *a)\n"
        "sys.meta_path.insert(0, Absent)\n"
        "sys.argv = ['reproduce', '--version']\n"
        "from reproduce.__main__ import main\n"
        "main()"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_missing_packages_are_named_with_the_command_that_installs_them() -> None:
    done = run_without("click", "ray", "polars")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "error: the reproduce command needs click, polars, ray, which are not installed: "
        "run pip install 'lfreeze[reproduce]'\n"
    )


def test_with_its_packages_the_command_runs() -> None:
    done = run_without()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("reproduce, version")


@pytest.mark.parametrize(
    ("arguments", "unused"),
    [
        (("--help",), (*SLOW, "polars", "pydantic")),
        (("run", "--help"), (*SLOW, "polars", "pydantic")),
        (("plan", "embedded"), SLOW),
        (("status", str(REFERENCE)), SLOW),
    ],
)
def test_a_quick_command_imports_no_slow_package(arguments: tuple[str, ...], unused: tuple[str, ...]) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['reproduce', *{arguments!r}]\n"
        "from reproduce.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"print([name for name in {unused!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
