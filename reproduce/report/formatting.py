"""Numbers, counts and lists as text; ``–`` for a missing value."""

from __future__ import annotations

NONE = "–"


def memory_unit(most: float | None) -> tuple[str, int]:
    """The largest unit of which ``most`` bytes are at least 1, and its size in bytes."""
    for name, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if (most or 0) >= size:
            return name, size
    return "bytes", 1


def number(value: float | None, digits: int = 1, scale: float = 1.0) -> str:
    return NONE if value is None else f"{value * scale:.{digits}f}".replace("-", "−")


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction of 1 as a percentage, without the % sign."""
    return number(fraction, digits, 100.0)


def change(ratio: float | None) -> str:
    """A ratio to a baseline as a signed change: 0.7 -> −30.0 %."""
    if ratio is None:
        return NONE
    points = round(100 * (ratio - 1), 1)
    return f"{points:+.1f} %".replace("-", "−") if points else "0.0 %"


def seconds(value: float | None) -> str:
    """Three significant digits, without an exponent."""
    if value is None:
        return NONE
    digits = max(0, 2 - len(str(int(abs(value)))) + 1) if abs(value) >= 1 else 3 if abs(value) >= 0.1 else 4
    return f"{value:.{digits}f}"


def n_is(count: int) -> str:
    """``n = 3`` with no-break spaces."""
    return f"n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{count:,}"


def plural(count: int, noun: str) -> str:
    """``1 trial``, ``1,275 trials``, ``17 strategies``."""
    many = noun.removesuffix("y") + "ies" if noun.endswith("y") else noun + "s"
    return f"{count:,} {noun if count == 1 else many}"


def listed(items: list[str], most: int = 6) -> str:
    """``a, b and c``; at most ``most`` items, the last of which counts the others."""
    if len(items) > most:
        items = [*items[: most - 1], f"{len(items) - most + 1} more"]
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""
