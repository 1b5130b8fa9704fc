"""JSON from files that other people wrote: every fault of its text is one type of error."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


class JsonError(ValueError):
    """A text that is not usable JSON; the message is a clause without the name of the file."""


def parse_json(text: str, *, unique_keys: bool = False) -> Any:
    """The value of a JSON text.

    Args:
        unique_keys: refuse an object with two values of one key, of which JSON would keep the last.

    Raises:
        JsonError: the text is not JSON, is nested too deeply, has an integer of thousands of digits, or
            a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique if unique_keys else None)
    except json.JSONDecodeError as error:
        raise JsonError(f"not JSON ({error.msg})") from None
    except RecursionError:
        raise JsonError("JSON that is nested too deeply") from None
    except JsonError:
        raise
    except ValueError:
        # Python converts no integer of more digits than sys.get_int_max_str_digits().
        raise JsonError("JSON with an integer of too many digits") from None


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise JsonError(f"JSON with two values of the key {twice!r}")
    return values
