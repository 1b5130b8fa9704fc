"""A search-space file: its keys, how it extends another file, and its JSON Schema for editors.

``python -m reproduce.plan.space_file`` prints the schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from lfreeze.errors import first_line, shown
from lfreeze.plain_files import is_file, read_plain
from lfreeze.recipe import CHOICES, RANGES, Recipe
from reproduce.plan.keys import Accepts, SpaceError, validated_keys
from reproduce.plan.own_tasks import TaskTable
from reproduce.plan.toml_text import parse_toml

Weights = Literal["pretrained", "random"]
WEIGHTS: tuple[str, ...] = get_args(Weights)
# Among the values of ``read_space``; no key of a file.
OWN_TASKS = "[tasks]"
_LISTED_TASKS = "list of tasks"
AXES = ("models", "tasks", "strategies", "seeds")
# A wheel has the files inside this package, a checkout in its top folder.
_FOLDERS = (Path(__file__).parents[1] / "search_spaces", Path(__file__).parents[2] / "search_spaces")


# More than any experiment needs, and few enough to plan within seconds.
MOST_TRIALS = 20_000
_Text = Annotated[str, Field(max_length=1000)]
_Name = Annotated[str, Field(min_length=1, max_length=1000)]
_List = Annotated[list[_Name], Field(min_length=1, max_length=1000)]
_Names = Annotated[_List, Accepts("a list of names, 1 to 1,000 of at most 1,000 characters")]
_Tasks = Annotated[
    _List | Annotated[dict[_Name, dict[str, Any]], Field(min_length=1, max_length=1000)],
    Accepts("a list of names, or a table [tasks.NAME] for each, 1 to 1,000"),
]
_Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
_Seeds = Annotated[
    list[_Seed],
    Field(min_length=1, max_length=MOST_TRIALS),
    Accepts(f"a list of whole numbers (64-bit), 1 to {MOST_TRIALS:,}"),
]
_Values = Annotated[list[Any], Field(min_length=1, max_length=1000)]
_MOST_FILES = 20  # that extend each other
_LARGEST = 1 << 20  # bytes
_Switch = Annotated[bool, Accepts("true or false")]


class SpaceFile(BaseModel):
    """A search space of lfreeze: the grid of trials, and the recipe that they share."""

    model_config = ConfigDict(extra="forbid", strict=True)

    extends: Annotated[_Text, Accepts("the name of a search space or a .toml file")] = Field(
        "", description="The space whose keys apply where this file has none: a name, or a file next to it."
    )
    description: Annotated[_Text, Accepts("text of at most 1,000 characters")] = Field(
        "", description="One line about the space."
    )
    weights: Annotated[Weights, Accepts(f"one of {', '.join(WEIGHTS)}")] = Field(
        "pretrained", description="Pretrained weights, or random ones of the true sizes."
    )
    exclusive: _Switch = Field(
        False, description="Whether each trial has its device to itself, so that its times count."
    )
    gpu: _Switch = Field(False, description="Whether the space needs a GPU unless the CPU is requested.")
    models: _Names = Field(
        default_factory=list, description="Models: names, Hugging Face identifiers, folders."
    )
    tasks: _Tasks = Field(
        default_factory=list,
        description="Tasks, such as rte; or a table of your own for each, with files and columns.",
    )
    strategies: _Names = Field(default_factory=list, description="Strategies, such as BOT25.")
    seeds: _Seeds = Field(default_factory=list, description="Seeds of the trials.")
    recipe: Annotated[dict[str, Any], Accepts("a table")] = Field(
        default_factory=dict, description="How each model is fine-tuned."
    )
    grid: Annotated[dict[str, _Values], Accepts("a table with a list of values for each key")] = Field(
        default_factory=dict,
        description="Recipe values that vary: by name, a list. Several keys: every combination.",
    )


def space_names() -> list[str]:
    """The spaces that come with the project."""
    return sorted({path.stem for folder in _FOLDERS for path in folder.glob("*.toml")})


def read_space(name: str) -> dict[str, Any]:
    """The keys of a space by name or path, with those of the spaces that it extends.

    ``tasks`` is a list of names in every case. The tables of one's own tasks are by name under ``OWN_TASKS``, each with
    the folder of its file.

    Raises:
        SpaceError: there is no such space, or a file is not valid.
    """
    return _read(name, ())


def validated(name: str, values: Mapping[str, Any]) -> SpaceFile:
    """The values as a space file.

    Raises:
        SpaceError: a key is unknown, or its value is not what it accepts.
    """
    return validated_keys(SpaceFile, f"search space {name!r}", values)


def space_schema() -> dict[str, Any]:
    """The JSON Schema of a search-space file; every key is optional, since a file may extend another."""
    recipe = TypeAdapter(Recipe).json_schema()
    for key, values in CHOICES.items():
        recipe["properties"][key]["enum"] = list(values)
    for key, (least, most) in RANGES.items():
        recipe["properties"][key] |= {"minimum": least} | ({} if most is None else {"maximum": most})
    schema = SpaceFile.model_json_schema()
    schema["properties"]["recipe"] |= {"properties": recipe["properties"], "additionalProperties": False}
    lists = {
        key: {"type": "array", "items": value, "minItems": 1, "uniqueItems": True}
        for key, value in recipe["properties"].items()
    }
    schema["properties"]["grid"] |= {"properties": lists, "additionalProperties": False}
    table = TaskTable.model_json_schema()
    schema["properties"]["tasks"]["anyOf"][1]["additionalProperties"] = {
        "anyOf": [table, {"maxProperties": 0}]
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _read(name: str, extending: tuple[Path, ...]) -> dict[str, Any]:
    path = _find(name).resolve()
    if path in extending:
        raise SpaceError(f"search space {name!r} cannot extend itself")
    if len(extending) >= _MOST_FILES:
        raise SpaceError(
            f"search space {name!r} is the end of more than {_MOST_FILES} files that extend each other"
        )
    try:
        values = parse_toml(_with_tasks_apart(read_plain(path, _LARGEST)))
    except OSError as error:
        raise SpaceError(f"search space {name!r} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise SpaceError(f"search space {name!r} is not valid TOML: {first_line(error)}") from None
    listed = values.pop(_LISTED_TASKS, None)
    file = validated(name, values)
    if both := [key for key in file.grid if key in file.recipe]:
        raise SpaceError(
            f"search space {name!r}: {both[0]} is in [recipe] and in [grid]: keep it in one of them"
        )
    own: dict[str, Any] = {}
    if isinstance(file.tasks, dict):
        # An empty table names a built-in task.
        own = {task: (table, _find(name).parent) for task, table in file.tasks.items() if table}
        values["tasks"] = list(file.tasks)
    if listed is not None:
        values["tasks"] = validated(name, {**values, "tasks": listed}).tasks
    if not file.extends:
        return {**values, OWN_TASKS: own}
    neighbour = path.parent / file.extends
    inherited = _read(str(neighbour) if neighbour.suffix == ".toml" else file.extends, (*extending, path))
    recipe = {**inherited.get("recipe", {}), **file.recipe}
    # A value of the file's own recipe replaces an inherited list of values.
    kept = {key: listed for key, listed in inherited.get("grid", {}).items() if key not in file.recipe}
    tasks = {**inherited[OWN_TASKS], **own}
    return {**inherited, **values, "recipe": recipe, "grid": {**kept, **file.grid}, OWN_TASKS: tasks}


def _with_tasks_apart(content: bytes) -> bytes:
    """A file with a list of tasks and tables of some, which TOML does not allow under one key, with two keys."""
    tables = re.search(rb"^[ \t]*\[", content, re.MULTILINE)
    if tables is None or not re.search(rb"^[ \t]*\[tasks\b", content, re.MULTILINE):
        return content
    key = json.dumps(_LISTED_TASKS).encode()
    head = re.sub(rb"^([ \t]*)tasks(?=[ \t]*=)", rb"\1" + key, content[: tables.start()], flags=re.MULTILINE)
    return head + content[tables.start() :]


def _find(name: str) -> Path:
    if name.endswith(".toml") or "/" in name:
        if is_file(Path(name)):
            return Path(name)
    else:
        for folder in _FOLDERS:
            if is_file(folder / f"{name}.toml"):
                return folder / f"{name}.toml"
    if name.endswith(".toml"):
        raise SpaceError(f"search space {shown(name)}: there is no such file")
    raise SpaceError(
        f"unknown search space {shown(name)}; known are {', '.join(space_names())}, or a path to a .toml file"
    )


if __name__ == "__main__":
    print(json.dumps(space_schema(), indent=2))
