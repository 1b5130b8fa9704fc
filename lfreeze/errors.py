"""The base of every error that bad input causes: one sentence, naming the value and what is accepted."""


class InputError(ValueError):
    """Input that cannot be used; programs print the message alone and exit with status 2."""


class StrategyError(InputError):
    """A strategy that cannot be used; the message names it and what is accepted."""
