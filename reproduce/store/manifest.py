"""The JSON files of an artifact folder as pydantic models, and how their errors become one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from lfreeze.atomic import write_atomically
from lfreeze.errors import InputError
from lfreeze.json_text import JsonError, parse_json
from lfreeze.plain_files import read_plain
from reproduce.plan.spec import Factors, TrialSpec, data_values, point_text
from reproduce.store.grid import plain

MANIFEST_FILE = "sweep.json"
_LARGEST = 256 << 20  # bytes
_Model = TypeVar("_Model", bound=BaseModel)


class ArtifactError(InputError):
    """An artifact folder that cannot be used; the message names it and says why."""


class ManifestTrial(BaseModel):
    """A trial in ``sweep.json``; values that a later version added are kept."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str
    task: str
    strategy: str
    seed: int
    run_id: str
    grid: dict[str, Any] = {}

    @classmethod
    def of(cls, spec: TrialSpec, grid: Iterable[str]) -> ManifestTrial:
        """The trial, with its values of a folder's grid."""
        point = {name: plain(getattr(spec.recipe, name)) for name in grid}
        return cls(**spec.factors.cell, run_id=spec.run_id, grid=point)

    @property
    def factors(self) -> Factors:
        point = ((name, tuple(v) if isinstance(v, list) else v) for name, v in self.grid.items())
        return Factors(self.model, self.task, self.strategy, self.seed, tuple(point))


def inputs_key(trial: ManifestTrial, recipe: Mapping[str, Any]) -> str:
    """A trial's key in ``Manifest.inputs``."""
    seed = f"/{trial.seed}" if {**recipe, **trial.grid}.get("data_seed") == "trial" else ""
    point = point_text(data_values(trial.factors.grid))
    return f"{trial.model}/{trial.task}{seed}" + (f"/{point}" if point else "")


class Manifest(BaseModel):
    """``sweep.json``.

    Attributes:
        space: the name of the search space of the first run.
        recipe: the recipe that all trials share.
        grid: recipe values that trials do not share, by name; each trial has its own.
        inputs: by ``model/task``, or ``model/task/seed`` where the seed draws the examples, the identity of
            the model and the data; with the grid's values that select texts, where there are any.
        trials: every trial that a run of the folder included, in order.
    """

    model_config = ConfigDict(strict=True, extra="allow")

    space: str
    recipe: dict[str, Any]
    grid: dict[str, list[Any]] = {}
    inputs: dict[str, dict[str, str]]
    trials: list[ManifestTrial]

    def write(self, path: Path) -> None:
        # A folder without a grid has the file that earlier versions wrote.
        write_json(path, self.model_dump(exclude_defaults=True))


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
        InputError: of the given type; the file cannot be read, is not JSON, or has another structure.
    """
    try:
        content = parse_json(read_plain(path, _LARGEST).decode())
    except OSError as error:
        raise error_type(f"{path} cannot be read ({error.strerror or error})") from None
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
        fault = f"{place:.80}{value}: {first['msg']}" if place else first["msg"]
        raise error_type(f"{path} is damaged: {fault}") from None
