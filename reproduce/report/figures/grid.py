"""Figures as grids of titled panels, with named bars and legends."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reproduce.report.figures.style import INK, MUTED, canvas, colour, hatch, plain, style

_LEFT, _RIGHT = 0.65, 0.15  # margins of a panel, in inches
BAR = 0.78  # width of a bar; 1 is the distance between two
WARNING = "#9a3412"


def panels(
    pairs: Sequence[tuple[str, str]],
    *,
    bars: int,
    height: float,
    below: float,
    title: str,
    notes: Sequence[tuple[str, str]] = (),
    left: float = _LEFT,
    columns: int | None = None,
    about: Sequence[tuple[str, str]] | None = None,
) -> tuple[Figure, list[Axes]]:
    """A figure with one titled panel for each pair.

    Args:
        height, below, left: height of a panel and the space below and to the left of it, in inches.
        notes: lines under the title, each with its colour.
        about: each panel's model and task for the page's filters, if they are not ``pairs``; empty for all.
    """
    models = {model for model, _ in pairs}
    columns = columns or min(len(pairs), 3 if len(models) == 3 else 2)
    rows = -(-len(pairs) // columns)
    # Pairs are sorted by model: with one column for each model, fill the columns downwards.
    downwards = columns == len(models) and len(pairs) == rows * columns
    inner = max(0.245 * bars, 3.0) if columns > 1 else max(0.4 * bars, 4.5)
    width = columns * (inner + left + _RIGHT) + 0.1
    head, foot, title_room = 0.42 + 0.2 * len(notes), 0.5, 0.32
    step = title_room + height + below
    total = head + rows * step + foot
    with style():
        figure = canvas(width, total)
        figure.text(0.12 / width, 1 - 0.12 / total, title, fontsize=12, fontweight="bold", va="top")
        for line, (note, ink) in enumerate(notes):
            figure.text(
                0.12 / width, 1 - (0.38 + 0.2 * line) / total, note, fontsize=8.5, color=ink, va="top"
            )
        panels = []
        about = pairs if about is None else about
        for place, (model, task) in enumerate(pairs):
            column, row = divmod(place, rows) if downwards else (place % columns, place // columns)
            at = column * (inner + left + _RIGHT) + left
            bottom = total - head - (row + 1) * step + below
            axes = figure.add_axes((at / width, bottom / total, inner / width, height / total))
            axes.set_title(
                " · ".join(part for part in (model, task) if part), fontsize=9.5, loc="left", pad=6, y=1.0
            )
            axes.yaxis.set_label_coords(-0.45 / inner, 0.5)
            axes.xaxis.set_label_coords(0.5, -0.3 / height)
            mark_panel([axes], place, *about[place])
            panels.append(axes)
    return figure, panels


def mark_panel(parts: Sequence[Axes], place: int, model: str, task: str) -> None:
    """Mark a panel's axes by ids in the SVG, from which the page's script reads its model and task."""
    for part, axes in enumerate(parts):
        axes.set_gid(":".join(["panel", str(place), str(part), quote(model, ""), quote(task, "")]))


def name_bars(axes: Axes, names: Sequence[str]) -> None:
    # Drawn as texts, since tick labels would take a third of the drawing time.
    axes.set_xticks([])
    for place, name in enumerate(names):
        below = axes.get_xaxis_transform()
        axes.text(place, -0.02, name, transform=below, rotation=90, ha="center", va="top", fontsize=7.8)
    axes.set_xlim(-0.65, len(names) - 0.35)
    plain(axes, grid="y")


def bars(axes: Axes, names: Sequence[str], heights: Sequence[float | None], families: Sequence[str]) -> None:
    """A bar for each strategy, in one call; “no result” for one without a height."""
    known = [place for place, height in enumerate(heights) if height is not None]
    highest = max((heights[place] or 0.0 for place in known), default=1.0)
    for place in sorted(set(range(len(names))) - set(known)):
        no_result(axes, place, 0.02 * highest)
    if known:
        axes.bar(
            known,
            [heights[place] or 0.0 for place in known],
            BAR,
            color=[colour(names[place], families) for place in known],
            hatch=[hatch(names[place]) for place in known],
            edgecolor=INK,
            linewidth=0.6,
            zorder=2,
        )


def whiskers(axes: Axes, spans: Sequence[tuple[float, float, float, float]]) -> None:
    """Whiskers of bars, in one call: (position, middle, length down, length up) each."""
    if spans:
        places, middles, down, up = zip(*spans, strict=True)
        axes.errorbar(
            places, middles, (down, up), fmt="none", ecolor=INK, capsize=2.2, elinewidth=0.9, capthick=0.9,
            zorder=4,
        )  # fmt: skip


def legend(figure: Figure, handles: Sequence[Patch | Line2D]) -> None:
    """One legend at the foot of the figure, in as few lines as its width allows."""
    with style():
        widths = [0.5 + 0.068 * len(str(handle.get_label())) for handle in handles]
        lines = next(n for n in range(1, len(handles) + 1) if sum(widths) <= n * figure.get_figwidth() * 0.97)
        columns = -(-len(handles) // lines)
        shown = figure.legend(
            handles=list(handles), loc="lower left", ncols=columns, frameon=False, fontsize=8,
            bbox_to_anchor=(0.0, 0.0), handlelength=1.6, columnspacing=1.4,
        )  # fmt: skip
        shown.set_gid("legend")


def no_result(axes: Axes, place: int, at: float) -> None:
    axes.text(place, at, "no result", rotation=90, ha="center", va="bottom", fontsize=7, color=MUTED)


def set_limits(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """Set limits with room around the points for their labels."""
    for values, setter in (([p[0] for p in points], axes.set_xlim), ([p[1] for p in points], axes.set_ylim)):
        low, high = min(values), max(values)
        room = 0.16 * (high - low) or 0.1 * abs(high) or 1.0
        setter(low - room, high + room)
