"""Markers of scatter plots, and labels placed to avoid markers and each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path as MarkerPath
from matplotlib.transforms import IdentityTransform

from reproduce.report.figures.style import INK, MUTED, colour, marker

_AREA = 190.0  # of a marker, in square points
_RADIUS = 7.0  # of a marker, in points
_FONT = 6.6
_SLIVER = 0.05  # smallest drawn share, so that the colour is visible
_RINGS = (1.0, 1.7, 2.5, 3.4, 4.6)  # candidate distances of a label, in radii of a marker
_ANGLES = np.linspace(0, 2 * np.pi, 16, endpoint=False)
_DISTANCES = np.repeat(_RINGS, len(_ANGLES))
_DIRECTIONS = np.tile(np.column_stack([np.cos(_ANGLES), np.sin(_ANGLES)]), (len(_RINGS), 1))

Points = Sequence[tuple[float, float]]
Boxes = npt.NDArray[np.float64]  # rows of left, low, right, high, in points


def gauges(axes: Axes, points: Points, shares: Sequence[float], colours: Sequence[str]) -> None:
    """Half-discs of which ``shares`` are filled, from the left."""
    whole = [_sector(1.0)]
    filled = [_sector(max(share, _SLIVER)) for share in shares]
    for shapes, faces, zorder in ((whole, ["white"], 3.0), (filled, colours, 4.0)):
        edges: dict[str, Any] = {"edgecolors": INK, "linewidths": 0.8, "clip_on": False}
        _collection(axes, points, shapes, sizes=[_AREA], facecolors=faces, zorder=zorder, **edges)


def dots(
    axes: Axes, points: Points, names: Sequence[str], families: Iterable[str], *, sizes: Sequence[float],
    widths: Sequence[float] = (0.6,),
) -> None:  # fmt: skip
    """A marker for each strategy, in its family's shape and colour; ``sizes`` in square points."""
    styles = [MarkerStyle(marker(name)) for name in names]
    shapes = [shape.get_path().transformed(shape.get_transform()) for shape in styles]
    faces = [colour(name, families) for name in names]
    _collection(
        axes, points, shapes, sizes=sizes, facecolors=faces, edgecolors=INK, linewidths=widths, zorder=3
    )


def _collection(axes: Axes, points: Points, shapes: Sequence[MarkerPath], **kwargs: Any) -> None:
    """Markers of several shapes in one collection, which takes as long to draw as one marker alone."""
    marks = PathCollection(shapes, offsets=points, offset_transform=axes.transData, **kwargs)
    marks.set_transform(IdentityTransform())
    axes.add_collection(marks, autolim=True)


def _sector(share: float) -> MarkerPath:
    """The part of the upper half-disc from the left end over ``share`` of its angle.

    Its radius is 0.5, like that of matplotlib's markers.
    """
    angles = np.linspace(np.pi, np.pi * (1 - share), max(2, round(24 * share)) + 1)
    arc = np.column_stack([np.cos(angles), np.sin(angles)])
    points = np.vstack([[0.0, 0.0], arc, [0.0, 0.0]])
    return MarkerPath(
        0.5 * points, [MarkerPath.MOVETO, *[MarkerPath.LINETO] * len(arc), MarkerPath.CLOSEPOLY]
    )


def place_labels(
    axes: Axes,
    points: Points,
    texts: Sequence[str],
    *,
    centred: bool = False,
    line: Points = (),
    others: Points = (),
) -> None:
    """Write each text near its point, where it overlaps markers and other labels the least.

    The axes' limits and size must be final. A distant text gets a thin line to its point.

    Args:
        centred: the markers are centred on their points; otherwise they are upper half-discs.
        line: points of a line that no text should cross.
        others: further markers, without a text.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    per_point = figure.dpi / 72
    centres = axes.transData.transform(np.asarray(points, dtype=float)) / per_point
    left, low, right, high = axes.get_window_extent().extents
    frame = (left / per_point, low / per_point, right / per_point, high / per_point)
    below, above = (_RADIUS / 1.6, _RADIUS / 1.6) if centred else (1.0, _RADIUS)
    marks = axes.transData.transform(np.asarray([*points, *others], dtype=float)) / per_point
    fixed = [np.array([x - _RADIUS, y - below, x + _RADIUS, y + above]) for x, y in marks]
    fixed += _along(axes, line, per_point)
    halves = [np.array([0.31 * _FONT * len(text) + 1, 0.55 * _FONT]) for text in texts]
    start = (0.0, 0.0 if centred else 0.35 * _RADIUS)
    chosen: dict[int, tuple[int, Boxes]] = {}
    # A label that was placed early moves away from later ones in the second round.
    for index in [*sorted(range(len(texts)), key=lambda i: -centres[i][1])] * 2:
        half = halves[index]
        middles = centres[index] + start + _DIRECTIONS * (_DISTANCES[:, None] * _RADIUS + half + 1)
        boxes = np.hstack([middles - half, middles + half])
        labels = [box for place, (_, box) in chosen.items() if place != index]
        cost = _overlap(boxes, np.array([*fixed, *labels])) + 50 * _outside(boxes, frame) + 2 * _DISTANCES
        best = int(np.argmin(cost))
        chosen[index] = best, boxes[best]
    for index, (best, box) in chosen.items():
        middle = (box[:2] + box[2:]) / 2
        _write(axes, texts[index], centres[index], middle, far=_DISTANCES[best] > _RINGS[0])


def _along(axes: Axes, line: Points, per_point: float) -> list[Boxes]:
    """Small boxes along a line, in points."""
    if len(line) < 2:
        return []
    corners = axes.transData.transform(np.asarray(line, dtype=float)) / per_point
    steps = np.linspace(0, 1, 40)[:, None]
    dots = np.vstack([a + steps * (b - a) for a, b in itertools.pairwise(corners)])
    return [np.array([x - 1, y - 1, x + 1, y + 1]) for x, y in dots]


def _write(axes: Axes, text: str, point: Boxes, at: Boxes, far: bool) -> None:
    line = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3} if far else None
    figure = axes.get_figure(root=True)
    assert figure is not None
    data = axes.transData.inverted().transform(point * figure.dpi / 72)
    axes.annotate(
        text,
        xy=(float(data[0]), float(data[1])),
        xytext=(at[0] - point[0], at[1] - point[1]),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=_FONT,
        arrowprops=line,
        zorder=5,
    )


def _overlap(boxes: Boxes, others: Boxes) -> Boxes:
    """For each box the area, in square points, that it shares with the others."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    areas: Boxes = np.clip(high - low, 0, None).prod(axis=2).sum(axis=1)
    return areas


def _outside(boxes: Boxes, frame: tuple[float, ...]) -> Boxes:
    """The distance that each box extends beyond the frame, in points."""
    beyond = np.hstack([np.array(frame[:2]) - boxes[:, :2], boxes[:, 2:] - np.array(frame[2:])])
    distances: Boxes = np.clip(beyond, 0, None).sum(axis=1)
    return distances
