"""Space files against their model and its JSON Schema."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest

from reproduce.plan.search_space import load_space
from reproduce.plan.space_file import SpaceError, space_names, space_schema

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
    ],
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
