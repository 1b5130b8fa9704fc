"""Parts that are found rather than listed: the modules of a package, and other packages' entry points."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from importlib.metadata import entry_points

from lfreeze.errors import StrategyError, first_line


def import_modules(package: str) -> None:
    """Import every module of a package, in the order of their names."""
    path = importlib.import_module(package).__path__
    for name in sorted(info.name for info in pkgutil.iter_modules(path)):
        importlib.import_module(f"{package}.{name}")


def load_entry_points(group: str) -> Iterator[tuple[str, object]]:
    """What installed packages name in an entry-point group, each with a description for messages.

    Raises:
        StrategyError: an entry point does not load.
    """
    for entry in sorted(entry_points(group=group), key=lambda entry: (entry.name, entry.value)):
        name = f"the entry point {entry.name} = {entry.value!r} in the group {group}"
        try:
            target = entry.load()
        # Another package's code can fail in any way.
        except Exception as error:
            raise StrategyError(
                f"{name} does not load ({first_line(error, with_type=True)}): correct or uninstall its package"
            ) from error
        yield name, target


def class_path(cls: type) -> str:
    """A class with its module, for messages."""
    return f"{cls.__module__}.{cls.__qualname__}"
