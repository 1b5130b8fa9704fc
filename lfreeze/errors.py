"""Errors that bad input causes, and how other libraries' errors are quoted in them."""

import re


class InputError(ValueError):
    """Input that cannot be used.

    The message is one sentence that names the value and what is accepted; programs print it alone
    and exit with status 2.
    """


class StrategyError(InputError):
    """A strategy that cannot be used; the message names it and what is accepted."""


def first_line(error: BaseException, *, with_type: bool = False) -> str:
    """The first line of an error's text, for quoting; the name of its type where it has no text.

    Args:
        with_type: put the name of the error's type in front.
    """
    name, text = type(error).__name__, str(error).strip()
    if not text:
        return name
    line = text.splitlines()[0]
    return f"{name}: {line}" if with_type else line


def shown(value: object) -> str:
    """A value as it was given, for quoting: at most 80 characters of it, whatever it is."""
    try:
        text = repr(value)
    # Python writes no integer of thousands of digits, and no list that is nested too deeply.
    except (ValueError, RecursionError):
        return f"a value of type {type(value).__name__} that is too long to show"
    return text if len(text) <= 80 else f"{text[:77]}..."


def whole_number(text: str) -> int:
    """The number that a text consists of, in ASCII digits; Python accepts those of every script.

    Raises:
        ValueError: it is not one, or has more than 100 characters.
    """
    if not re.fullmatch(r"[+-]?[0-9_]+", text.strip()) or len(text) > 100:
        raise ValueError(f"{shown(text)} is not a whole number")
    return int(text)
