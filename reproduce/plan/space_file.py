"""A search-space file: its keys, how it extends another file, and its JSON Schema for editors.

``python -m reproduce.plan.space_file`` prints the schema.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lfreeze.errors import InputError, first_line
from lfreeze.recipe import CHOICES, Recipe

Weights = Literal["pretrained", "random"]
WEIGHTS: tuple[str, ...] = get_args(Weights)
AXES = ("models", "tasks", "strategies", "seeds")
# A wheel has the files inside this package, a checkout in its top folder.
_FOLDERS = (Path(__file__).parents[1] / "search_spaces", Path(__file__).parents[2] / "search_spaces")


class SpaceError(InputError):
    """A search space that cannot be used; the message names what is wrong and what is accepted."""


class _Accepts(str):
    """What a key accepts, in the words of an error message."""


_Names = Annotated[
    list[Annotated[str, Field(min_length=1)]], Field(min_length=1), _Accepts("a list of names")
]
_Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
_Seeds = Annotated[list[_Seed], Field(min_length=1), _Accepts("a list of whole numbers (64-bit)")]
_Switch = Annotated[bool, _Accepts("true or false")]


class SpaceFile(BaseModel):
    """A search space of lfreeze: the grid of trials, and the one recipe that they share."""

    model_config = ConfigDict(extra="forbid", strict=True)

    extends: Annotated[str, _Accepts("the name of a search space or a .toml file")] = Field(
        "", description="The space whose keys apply where this file has none: a name, or a file next to it."
    )
    description: Annotated[str, _Accepts("text")] = Field("", description="One line about the space.")
    weights: Annotated[Weights, _Accepts(f"one of {', '.join(WEIGHTS)}")] = Field(
        "pretrained", description="Pretrained weights, or random ones of the true sizes."
    )
    exclusive: _Switch = Field(
        False, description="Whether each trial has its device to itself, so that its times count."
    )
    gpu: _Switch = Field(False, description="Whether the space needs a GPU unless the CPU is requested.")
    models: _Names = Field(
        default_factory=list, description="Models: names, Hugging Face identifiers, folders."
    )
    tasks: _Names = Field(default_factory=list, description="Tasks, such as rte.")
    strategies: _Names = Field(default_factory=list, description="Strategies, such as BOT25.")
    seeds: _Seeds = Field(default_factory=list, description="Seeds of the trials.")
    recipe: Annotated[dict[str, Any], _Accepts("a table")] = Field(
        default_factory=dict, description="How each model is fine-tuned."
    )


def space_names() -> list[str]:
    """The spaces that come with the project."""
    return sorted({path.stem for folder in _FOLDERS for path in folder.glob("*.toml")})


def read_space(name: str) -> dict[str, Any]:
    """The keys of a space by name or path, with those of the spaces that it extends.

    Raises:
        SpaceError: there is no such space, or a file is not valid.
    """
    return _read(name, ())


def validated(name: str, values: Mapping[str, Any]) -> SpaceFile:
    """The values as a space file.

    Raises:
        SpaceError: a key is unknown, or its value is not what it accepts.
    """
    try:
        return SpaceFile.model_validate(values)
    except ValidationError as error:
        keys = [str(problem["loc"][0]) for problem in error.errors()]
    fields = SpaceFile.model_fields
    for key in keys:
        if key not in fields:
            raise SpaceError(f"search space {name!r}: unknown key {key!r}; known are {', '.join(fields)}")
    accepted = next(item for item in fields[keys[0]].metadata if isinstance(item, _Accepts))
    raise SpaceError(f"search space {name!r}: {keys[0]} = {values[keys[0]]!r} is not {accepted}")


def space_schema() -> dict[str, Any]:
    """The JSON Schema of a search-space file; every key is optional, since a file may extend another."""
    recipe = TypeAdapter(Recipe).json_schema()
    for key, values in CHOICES.items():
        recipe["properties"][key]["enum"] = list(values)
    schema = SpaceFile.model_json_schema()
    schema["properties"]["recipe"] |= {"properties": recipe["properties"], "additionalProperties": False}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _read(name: str, extending: tuple[Path, ...]) -> dict[str, Any]:
    path = _find(name).resolve()
    if path in extending:
        raise SpaceError(f"search space {name!r} cannot extend itself")
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    # Integers of thousands of digits are other ValueErrors than faulty TOML.
    except (ValueError, RecursionError) as error:
        raise SpaceError(f"search space {name!r} is not valid TOML: {first_line(error)}") from None
    file = validated(name, values)
    if not file.extends:
        return values
    neighbour = path.parent / file.extends
    inherited = _read(str(neighbour) if neighbour.suffix == ".toml" else file.extends, (*extending, path))
    recipe = {**inherited.get("recipe", {}), **file.recipe}
    return {**inherited, **values, "recipe": recipe}


def _find(name: str) -> Path:
    if name.endswith(".toml") or "/" in name:
        if Path(name).is_file():
            return Path(name)
    else:
        for folder in _FOLDERS:
            if (folder / f"{name}.toml").is_file():
                return folder / f"{name}.toml"
    if name.endswith(".toml"):
        raise SpaceError(f"search space {name!r}: there is no such file")
    raise SpaceError(
        f"unknown search space {name!r}; known are {', '.join(space_names())}, or a path to a .toml file"
    )


if __name__ == "__main__":
    print(json.dumps(space_schema(), indent=2))
