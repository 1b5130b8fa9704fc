"""The JSON files of an artifact folder as pydantic models, and how their errors become one sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from lfreeze.atomic import write_atomically
from lfreeze.errors import InputError
from lfreeze.json_text import JsonError, parse_json
from reproduce.plan.spec import Factors

_Model = TypeVar("_Model", bound=BaseModel)


class ManifestTrial(BaseModel):
    """A trial in ``sweep.json``; values that a later version added are kept."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str
    task: str
    strategy: str
    seed: int
    run_id: str


def inputs_key(trial: Factors | ManifestTrial, recipe: Mapping[str, Any]) -> str:
    """A trial's key in ``Manifest.inputs``."""
    seed = f"/{trial.seed}" if recipe.get("data_seed") == "trial" else ""
    return f"{trial.model}/{trial.task}{seed}"


class Manifest(BaseModel):
    """``sweep.json``.

    Attributes:
        space: the name of the search space of the first run.
        recipe: the recipe that all trials share.
        inputs: by ``model/task``, or ``model/task/seed`` where the seed draws the examples, the identity of
            the model and the data.
        trials: every trial that a run of the folder included, in order.
    """

    model_config = ConfigDict(strict=True, extra="allow")

    space: str
    recipe: dict[str, Any]
    inputs: dict[str, dict[str, str]]
    trials: list[ManifestTrial]


class Running(BaseModel):
    """``running.json``: the trials that a live sweep is training."""

    model_config = ConfigDict(strict=True)

    running: list[str]


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically."""
    write_atomically(path, lambda file: file.write(json.dumps(content, indent=1).encode()))


def load_json(path: Path, model: type[_Model], error_type: type[InputError]) -> _Model:
    """Read a JSON file into a model.

    Raises:
        InputError: of the given type; the file is not JSON, or has another structure.
    """
    try:
        content = parse_json(path.read_text("utf-8"))
    except UnicodeDecodeError:
        raise error_type(f"{path} is damaged: it is not JSON") from None
    except JsonError as error:
        raise error_type(f"{path} is damaged: it is {error}") from None
    return validated(path, content, model, error_type)


def validated(path: Path, content: Any, model: type[_Model], error_type: type[InputError]) -> _Model:
    """The content of a file as a model.

    Raises:
        InputError: of the given type, with the first fault of the content.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        value = "" if first["type"] == "missing" else f" = {first['input']!r:.80}"
        fault = f"{place}{value}: {first['msg']}" if place else first["msg"]
        raise error_type(f"{path} is damaged: {fault}") from None
