"""Space files against their model and its JSON Schema."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest

from lfreeze.errors import InputError
from reproduce.plan.keys import SpaceError
from reproduce.plan.search_space import load_space
from reproduce.plan.space_file import space_names, space_schema

ROOT = Path(__file__).parents[3]
SCHEMA_FILE = ROOT / "docs" / "search-space.schema.json"


@pytest.mark.parametrize("name", space_names())
def test_the_projects_spaces_follow_the_schema(name: str) -> None:
    values = tomllib.loads((ROOT / "search_spaces" / f"{name}.toml").read_text("utf-8"))
    jsonschema.Draft202012Validator(space_schema()).validate(values)


def test_the_documented_schema_is_the_current_one() -> None:
    assert json.loads(SCHEMA_FILE.read_text("utf-8")) == space_schema()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learning_rate = 1", "unknown key 'learning_rate'; known are extends, description, weights"),
        ("gpu = 1", "gpu = 1 is not true or false"),
        ('exclusive = "yes"', "exclusive = 'yes' is not true or false"),
        ('weights = "none"', "weights = 'none' is not one of pretrained, random"),
        ("extends = 3", "extends = 3 is not the name of a search space or a .toml file"),
        ("models = []", "models = [] is not a list of names"),
        ('tasks = "rte"', "tasks = 'rte' is not a list of names"),
        ("strategies = [25]", "strategies = [25] is not a list of names"),
        ("seeds = [1.0]", "seeds = [1.0] is not a list of whole numbers"),
        ("seeds = [true]", "seeds = [True] is not a list of whole numbers"),
        ('recipe = "fast"', "recipe = 'fast' is not a table"),
        ("gpu = 1\nseedz = [1]", "unknown key 'seedz'"),
        (f"description = '{'x' * 1001}'", f"description = '{'x' * 76}... is not text of at most 1,000"),
        (f"models = ['{'x' * 1001}']", f"models = ['{'x' * 75}... is not a list of names"),
        (f"{'k' * 5000} = 1", f"unknown key '{'k' * 76}...; known are"),
    ],
    ids=lambda text: text[:40],
)
def test_each_error_is_one_sentence_with_the_value_and_what_is_accepted(
    line: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.toml"
    extends = "" if line.startswith("extends") else 'extends = "embedded"\n'
    file.write_text(extends + line)
    with pytest.raises(SpaceError, match=re.escape(message)) as error:
        load_space(str(file))
    assert str(error.value).startswith(f"search space {str(file)!r}: ")
    assert "\n" not in str(error.value)
    with pytest.raises(jsonschema.ValidationError):
        # A JSON Schema counts 1.0 as a whole number.
        jsonschema.validate(tomllib.loads(file.read_text().replace("1.0", "1.5")), space_schema())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"seeds = [{'9' * 5000}]", "is not valid TOML: Exceeds the limit"),
        ("a = " + "[" * 100_000, "is not valid TOML: "),
        ("a." * 100_000 + "b = 1", "is not valid TOML: a key has more than 100 parts"),
        (f"[{'a.' * 100_000}b]", "is not valid TOML: a key has more than 100 parts"),
        (f"recipe = {{{'a.' * 100_000}b = 1}}", "is not valid TOML: a key has more than 100 parts"),
        ("#" * (1 << 20) + "\n", r"cannot be read \(it has 1,048,577 bytes, more than 1,048,576\)"),
        (
            f"seeds = {list(range(20_001))}",
            r"seeds = \[0, .*\.\.\. is not a list of whole numbers \(64-bit\), 1 to 20,000",
        ),
        (f"seeds = [0x{'f' * 5000}]", "seeds = a value of type list that is too long to show is not"),
    ],
    ids=lambda text: text[:40],
)
def test_files_of_no_sensible_size(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(content)
    with pytest.raises(SpaceError, match=message) as caught:
        load_space(str(tmp_path / "a.toml"))
    assert len(str(caught.value)) < 400


def test_a_thousand_files_that_extend_each_other(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / f"{number}.toml").write_text(f'extends = "{number + 1}.toml"\n')
    (tmp_path / "1000.toml").write_text('extends = "embedded"\n')
    with pytest.raises(SpaceError, match="is the end of more than 20 files that extend each other"):
        load_space(str(tmp_path / "0.toml"))
    assert load_space(str(tmp_path / "985.toml")).seeds == load_space("embedded").seeds


def test_more_trials_than_can_be_planned(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(f'extends = "embedded"\nseeds = {list(range(1000))}\n')
    with pytest.raises(SpaceError, match="'a' has 34,000 trials, more than 20,000: shorten one"):
        load_space(str(tmp_path / "a.toml"))
    grid = {
        name: [str(number) for number in range(1, 1001)]
        for name in ("steps", "warmup_steps", "eval_batch_size")
    }
    with pytest.raises(SpaceError, match="has 102,000,000,000 trials"):
        load_space("embedded", grid=grid)


def test_names_that_no_folder_can_have(tmp_path: Path) -> None:
    for name in (f"org/{'m' * 237}", f"org/{'é' * 50}"):
        with pytest.raises(
            SpaceError, match="is longer than 240 characters, as long as a folder's name may be"
        ):
            load_space("embedded", {"models": [name]})
    for name in ("a" * 300, f"/{'a' * 300}", "~nobody-of-this-name/x", f"x/{'y' * 5000}"):
        with pytest.raises(InputError) as caught:
            load_space("embedded", {"models": [name]})
        assert len(str(caught.value)) < 400
        with pytest.raises(SpaceError, match=r"unknown search space|there is no such file"):
            load_space(f"{name}.toml")


@pytest.mark.parametrize("seed", ["٤٢", "1.5", "", "9" * 5000, "0x1"])
def test_seeds_are_written_in_ascii_digits(seed: str) -> None:
    with pytest.raises(SpaceError, match="are not whole numbers separated by commas"):
        load_space("embedded", {"seeds": [seed]})
