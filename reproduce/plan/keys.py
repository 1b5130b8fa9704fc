"""The keys of a search-space file's tables: what each accepts, and the sentence about a value that is not that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lfreeze.errors import InputError, shown

_Model = TypeVar("_Model", bound=BaseModel)


class SpaceError(InputError):
    """A search space that cannot be used; the message names what is wrong and what is accepted."""


class Accepts(str):
    """What a key accepts, in the words of an error message."""


def validated_keys(model: type[_Model], where: str, values: Mapping[str, Any]) -> _Model:
    """The values as a model, each of whose fields has an ``Accepts`` in its annotation.

    Args:
        where: starts the message of an error.

    Raises:
        SpaceError: a key is unknown or missing, or its value is not what it accepts.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = error.errors()
    fields, keys = model.model_fields, [str(problem["loc"][0]) for problem in problems]
    for key in keys:
        if key not in fields:
            raise SpaceError(f"{where}: unknown key {shown(key)}; known are {', '.join(fields)}")
    if missing := [key for key in keys if key not in values]:
        raise SpaceError(f"{where} lacks the key {', '.join(missing)}")
    accepted = next(item for item in fields[keys[0]].metadata if isinstance(item, Accepts))
    raise SpaceError(f"{where}: {keys[0]} = {shown(values[keys[0]])} is not {accepted}")
