"""``reproduce init``: the file that it writes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from reproduce.cli.app import main
from reproduce.plan.search_space import load_space


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    rows = "".join(f'"good, ""{i}""",fine,{"yes" if i % 3 else "no"}\n' for i in range(60))
    for name in ("train", "dev"):
        (tmp_path / "texts" / f"{name}.csv").write_text(f"review,answer,keep\n{rows}")
    return tmp_path


def init(*arguments: str, model: str = "tiny-gemma", train: str = "texts/train.csv") -> Result:
    fixed = ["init", "--model", model, "--train", train, "--label", "keep"]
    return CliRunner().invoke(main, [*fixed, *arguments])


def test_the_written_space_loads_with_the_texts(folder: Path) -> None:
    done = init("--text", "review")
    assert done.exit_code == 0, done.output
    assert done.output == (
        "mine.toml: 54 training and 6 validation examples, 2 labels: no, yes\nNext: reproduce run mine.toml\n"
    )
    space = load_space("mine.toml")
    assert (space.models, list(space.tasks)) == (("tiny-gemma",), ["mine"])
    assert (space.tasks["mine"].fields, space.tasks["mine"].n_validation) == (("review",), 6)
    assert space.recipe == load_space("embedded").recipe


def test_pairs_a_validation_file_another_folder_and_larger_models(folder: Path) -> None:
    (folder / "spaces").mkdir()
    arguments = (
        "--text",
        "review",
        "--text",
        "answer",
        "--validation",
        "texts/dev.csv",
        "--out",
        "spaces/x.toml",
    )
    done = init(*arguments, model="org/some-model@v1")
    assert done.exit_code == 0, done.output
    space = load_space("spaces/x.toml")
    assert space.tasks["x"].fields == ("review", "answer")
    assert space.tasks["x"].n_validation == 60
    assert space.models == ("org/some-model@v1",)
    assert space.recipe == load_space("small").recipe


def test_what_the_file_suggests_in_comments_is_valid(folder: Path) -> None:
    assert init("--text", "review").exit_code == 0
    lines = Path("mine.toml").read_text().splitlines()
    Path("all.toml").write_text(
        "\n".join(line.removeprefix("# ") if " = " in line else line for line in lines)
    )
    both = load_space("all.toml"), load_space("mine.toml")
    assert both[0].recipe == both[1].recipe
    assert both[0].tasks["mine"].labels == both[1].tasks["mine"].labels


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"--out": "here.toml"},
            "here.toml exists already and is not replaced: name another file with --out",
        ),
        ({"--out": "x.txt"}, "--out x.txt does not end in .toml"),
        ({"--out": "no/x.toml"}, "--out no/x.toml: the folder no does not exist"),
        (
            {"--out": "rte.toml"},
            "[tasks.rte] has the name of a built-in task: choose another one for your task",
        ),
        ({"--text": "stars"}, "texts/train.csv: no column stars; it has review, answer, keep"),
        ({"--label": "answer"}, "texts/train.csv: every example has the answer 'fine'"),
        ({"--train": "texts/none.csv"}, "texts/none.csv cannot be read (No such file or directory)"),
        ({"--train": "texts"}, "texts is a folder: name a file that ends in one of .csv"),
        ({"--model": "gpt5"}, "unknown model 'gpt5'; known are"),
    ],
)
def test_what_is_refused(arguments: dict[str, str], message: str, folder: Path) -> None:
    Path("here.toml").write_text("mine")
    given = {"--text": "review", "--out": "mine.toml"} | arguments
    done = init(*(word for pair in given.items() for word in pair))
    assert done.exit_code == 2
    assert done.output.startswith("error: ")
    assert message in done.output
    assert done.output.count("\n") == 1
    assert Path("here.toml").read_text() == "mine"
    assert sorted(path.name for path in folder.glob("*.toml")) == ["here.toml"]
