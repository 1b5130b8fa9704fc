"""Errors that bad input causes, and how other libraries' errors are quoted in them."""


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
