"""README and documentation: every example runs, or states what it needs; links, options and site are valid.

A fenced block of Bash, Python, TOML, JSON or diff has a marker in the line before it:

- ``<!-- run -->``: run here as it is. A TOML block is loaded as a search space.
- ``<!-- example: NAME -->``: run by a test of its own.
- ``<!-- command: NAME -->``: run by ``.ci/run``, the same in every file.
- ``<!-- file: PATH -->``, ``<!-- edit: PATH -->``, ``<!-- append: PATH -->``, ``<!-- package: PATH -->``: applied to a
  copy of the code by the tests of ``docs/extending.md``.
- ``<!-- needs: THING, ... -->``: not run, since it needs what is not available here.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import polars as pl
import pytest

from lfreeze.__main__ import main as estimate_command
from reproduce.cli.app import main
from reproduce.plan.search_space import load_space
from reproduce.store.schema import SCHEMA_VERSION
from tests.support.program import Program

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
LANGUAGES = ("bash", "python", "toml", "json", "diff")
NEEDS = {"gpu", "docker", "hub", "cluster", "data", "index", "checkout", "slurm", "apptainer"}
APPLIED = ("file", "edit", "append", "package")
# Options of other programs that the pages name: docker, compose, pip, Slurm, Apptainer.
OTHER_OPTIONS = {"--profile", "--editable", "--exclusive", "--bind"}


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, first line, language, marker (name and value), visible title and text."""

    page: str
    line: int
    language: str
    marker: tuple[str, str] | None
    title: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@functools.cache
def blocks() -> tuple[Block, ...]:
    fence = re.compile(
        r'^(?P<indent> *)```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^(?P=indent)```$',
        re.M | re.S,
    )
    collected = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in fence.finditer(text):
            before = text[: match.start()].rstrip("\n").rpartition("\n")[2]
            marker = re.fullmatch(r" *<!-- ([a-z]+)(?:: (.+))? -->", before)
            collected.append(
                Block(
                    page.name,
                    text[: match.start()].count("\n") + 1,
                    match["language"],
                    (marker[1], marker[2] or "") if marker else None,
                    match["title"],
                    textwrap.dedent(match["text"]) if match["language"] != "diff" else _dedented(match),
                )
            )
    return tuple(collected)


def _dedented(match: re.Match[str]) -> str:
    indent = len(match["indent"])
    return "".join(line[indent:] for line in match["text"].splitlines(keepends=True))


def marked(name: str, language: str) -> list[Block]:
    return [
        block for block in blocks() if block.marker and block.marker[0] == name and block.language == language
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory as the pages assume: the commands, artifacts, a model's folder."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "bin").mkdir()
    for name in ("reproduce", "lfreeze"):
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {name} "$@"\n')
        command.chmod(0o755)
    shutil.copytree(ROOT / "tests" / "data" / "schema-2", folder / "artifacts" / "embedded")
    reference = ROOT / "artifacts" / "reference"
    shutil.copytree(reference, folder / "artifacts" / "reference")
    shutil.copytree(reference / "embedded-full", folder / "artifacts" / "embedded-full")
    (folder / "path" / "to").mkdir(parents=True)
    shutil.copytree(ROOT / "lfreeze" / "tiny" / "weights" / "tiny-gemma", folder / "path" / "to" / "model")
    return folder


def run(command: list[str], cwd: Path) -> str:
    """The output of a command."""
    completed = subprocess.run(
        command,
        cwd=cwd,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PATH": f"{cwd / 'bin'}{os.pathsep}{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout


@pytest.mark.parametrize("block", [b for b in blocks() if b.language in LANGUAGES], ids=str)
def test_every_block_runs_or_states_what_it_needs(block: Block) -> None:
    assert block.marker is not None, f"{block}: no marker before the block"
    name, value = block.marker
    if name == "needs":
        assert set(value.split(", ")) <= NEEDS, f"{block}: unknown need in {value}"
    elif name == "command":
        assert value in ("run", "test")
    elif name == "example":
        assert value in ("trainer", "slurm")
    elif name in APPLIED:
        assert block.page == "extending.md"
        assert block.title == ("pyproject.toml" if name == "package" else value)
    else:
        assert name == "run", f"{block}: unknown marker {name}"
        assert block.language in ("bash", "python", "toml")


@pytest.mark.parametrize("block", marked("run", "bash"), ids=str)
def test_a_command_block_runs(block: Block, place: Path) -> None:
    assert run(["bash", "-euo", "pipefail", "-c", block.text], place)


@pytest.mark.parametrize("block", marked("run", "python"), ids=str)
def test_a_python_block_runs(block: Block, reproduce: Program, place: Path) -> None:
    printed = reproduce.execute(block.text, cwd=place)
    assert ("4 of 8 layers frozen" in printed) == ("print(" in block.text)


@pytest.mark.parametrize("block", marked("run", "toml"), ids=str)
def test_a_space_block_is_a_valid_search_space(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(block.text, "utf-8")
    space = load_space("mine.toml")
    assert list(space.seeds) == tomllib.loads(block.text)["seeds"]
    schema = re.findall(r"^#:schema (\S+)$", block.text, re.M)
    assert schema
    assert (ROOT / "search_spaces" / schema[0]).is_file() or (ROOT / schema[0]).is_file()


@pytest.mark.parametrize("name", ["trainer"])
def test_an_example_runs(name: str, reproduce: Program, tmp_path: Path) -> None:
    (block,) = [b for b in blocks() if b.marker == ("example", name)]
    assert "ADT-L50: 4 of 8 layers frozen" in reproduce.execute(block.text, cwd=tmp_path)


@pytest.mark.parametrize("name", ["run", "test"])
def test_the_two_commands_are_the_same_everywhere(name: str) -> None:
    commands = [b for b in blocks() if b.marker == ("command", name)]
    assert commands[0].page == "README.md"
    assert len({block.text for block in commands}) == 1


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


def test_every_place_that_the_pages_name_exists() -> None:
    """Paths and functions in ``README.md`` and in the table "Where things are"."""
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    table = text.partition("## Where things are")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| [^|]*\? \| ([^|]*) \| ([^|]*)\|$", table, re.M)
    assert len(rows) >= 10
    for files, names in rows:
        paths = [ROOT / name for name in re.findall(r"`([^`]+)`", files)]
        folders = [path for path in paths if path.is_dir()]
        sources = [path for path in paths if path.is_file()]
        sources += [module for folder in folders for module in folder.glob("*.py")]
        assert all(path.exists() for path in paths), files
        code = "\n".join(source.read_text("utf-8") for source in sources)
        for name in re.findall(r"`([^`]+)`", names):
            assert re.search(rf"^\s*(def|class) {name.split('.')[-1]}\b", code, re.M), (files, name)
    for path in re.findall(r"\]\((?!http)([^)#]+)", (ROOT / "README.md").read_text("utf-8")):
        assert (ROOT / path).exists() or path == "CONTRIBUTING.md", path


def _option_uses() -> list[tuple[str, str | None, str]]:
    """Page, command of a program (None: any) and option, for each option in the pages."""
    uses: list[tuple[str, str | None, str]] = []
    for page in PAGES:
        text = page.read_text("utf-8").replace("\\\n", " ")
        for command, rest in re.findall(r"(?:reproduce|lfreeze) ([a-z]+)\b([^`\n]*)", text):
            if command not in (*main.commands, "estimate"):
                continue
            words = re.split(r"&&|\||#|;", rest)[0]
            uses += [(page.name, command, option) for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", words)]
        for span in re.findall(r"`(--[a-z][a-z-]*)[^`]*`", text):
            if span not in OTHER_OPTIONS:
                uses.append((page.name, None, span))
    return uses


def test_every_option_in_the_pages_exists(capsys: pytest.CaptureFixture[str]) -> None:
    options = {
        name: {o for p in command.params if isinstance(p, click.Option) for o in (*p.opts, *p.secondary_opts)}
        | {"--help"}
        for name, command in main.commands.items()
    }
    with pytest.raises(SystemExit):
        estimate_command(["estimate", "--help"])
    options["estimate"] = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    uses = _option_uses()
    assert len(uses) > 40
    for page, command, option in uses:
        known = options[command] if command else set().union(*options.values())
        assert option in known, f"{page}: {command or 'reproduce'} has no option {option}"


def test_the_site_builds(tmp_path: Path) -> None:
    for module in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(module, reason=f"{module} is not installed: pip install 'lfreeze[dev]'")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    completed = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert "WARNING" not in completed.stdout + completed.stderr
    pages = {page.stem for page in PAGES if page.name != "README.md"} - {"index"}
    assert pages <= {folder.name for folder in (tmp_path / "site").iterdir() if folder.is_dir()}


def applied_blocks(*names: str) -> list[Block]:
    return [b for b in blocks() if b.page == "extending.md" and b.marker and b.marker[0] in names]


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A copy of the program to which every file and change of ``docs/extending.md`` is applied."""
    code = tmp_path_factory.mktemp("code")
    for name in ("lfreeze", "reproduce", "search_spaces"):
        shutil.copytree(ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    claims = Path("artifacts/reference/paper_claims.toml")
    (code / claims).parent.mkdir(parents=True)
    shutil.copy(ROOT / claims, code / claims)
    for block in applied_blocks("file", "append", "edit"):
        assert block.marker is not None
        action, name = block.marker
        target = code / name
        if action == "file":
            assert not target.exists(), f"{block}: {name} exists already"
            target.write_text(block.text, "utf-8")
            continue
        text = target.read_text("utf-8")
        if action == "append":
            target.write_text(f"{text}\n{block.text}", "utf-8")
            continue
        lines = block.text.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] in " -")
        after = "".join(line[1:] for line in lines if line[0] in " +")
        assert text.count(before) == 1, (
            f"{block}: {name} does not contain these lines exactly once:\n{before}"
        )
        target.write_text(text.replace(before, after), "utf-8")
    with Program(code) as program:
        yield program


@pytest.mark.sweep
def test_an_arm_a_column_a_figure_and_a_claim_of_the_guide_work(extended: Program, tmp_path: Path) -> None:
    grid = ("--strategies", "ALL,BOT75,EDGE25", "--tasks", "tiny-cb", "--seeds", "1,2")
    extended(
        *("run", "embedded", *grid, "--set", "steps=6", "--engine", "inline", "--artifacts", "results"),
        cwd=tmp_path,
    )
    rows = pl.read_parquet(tmp_path / "results" / "trials" / "**" / "*.parquet").sort("strategy", "seed")
    assert rows["status"].to_list() == ["ok"] * 6
    assert rows["schema_version"].unique().to_list() == [SCHEMA_VERSION]
    assert rows.filter(pl.col("strategy") == "EDGE25")["frozen_layers"].to_list() == [[0, 7]] * 2
    steps = pl.read_parquet(tmp_path / "results" / "steps" / "**" / "*.parquet")
    last = dict(steps.filter(pl.col("step") == 6).select("run_id", "loss").iter_rows())
    assert dict(rows.select("run_id", "final_loss").iter_rows()) == last
    report = tmp_path / "results" / "report"
    figure = pl.read_csv(report / "figures" / "final_loss.csv")
    assert figure.select("strategy", "n").rows() == [("ALL", 2), ("BOT75", 2), ("EDGE25", 2)]
    assert (report / "figures" / "final_loss.png").is_file()
    page = (report / "report.html").read_text("utf-8")
    assert "Freezing 75 % of the layers at the bottom leaves a higher training loss" in page
    assert "difference in final training loss" in page


def test_a_model_of_the_guide_works(extended: Program, tmp_path: Path) -> None:
    models = ("--models", "smollm2-360m", "--strategies", "EDGE25", "--seeds", "1")
    planned = extended("plan", "small", *models, cwd=tmp_path)
    assert "smollm2-360m" in planned


def test_a_task_of_the_guide_works(extended: Program, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "BoolQ"
    folder.mkdir(parents=True)
    for name, count in (("train.jsonl", 40), ("val.jsonl", 8)):
        lines = (
            f'{{"question": "is {i} even", "passage": "{i} is a number", "label": {"true" if i % 2 == 0 else "false"}}}\n'
            for i in range(count)
        )
        (folder / name).write_text("".join(lines), "utf-8")
    # JSON's true is the label True.
    factors = ("--strategy", "ALL", "--model", "tiny-gemma", "--task", "boolq")
    printed = extended("trial", *factors, "--set", "steps=2", "--data-dir", "data", "--json", cwd=tmp_path)
    assert '"label_names": [\n  "False",\n  "True"\n ]' in printed
    assert '"n_validation": 8' in printed


def test_an_arm_of_another_package_works(tmp_path: Path) -> None:
    (package,) = applied_blocks("package")
    (arm,) = [b for b in applied_blocks("file") if b.marker == ("file", "lfreeze/kinds/edges.py")]
    assert package.marker is not None
    (tmp_path / package.marker[1]).write_text(arm.text, "utf-8")
    project = tomllib.loads(package.text)["project"]
    info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    ((group, points),) = project["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    with Program(ROOT, tmp_path) as program:
        planned = program("plan", "embedded", "--strategies", "EDGE25")
    assert "EDGE25" in planned
