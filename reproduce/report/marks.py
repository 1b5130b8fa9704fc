"""Figure 4's markers, and labels that keep clear of markers and of each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.path import Path as MarkerPath

from reproduce.report.style import INK, MUTED

_AREA = 190.0  # of a marker, in square points
_RADIUS = 7.0  # of a marker, in points
_FONT = 6.6
_SLIVER = 0.05  # so that the colour shows where next to nothing trains
_RINGS = (1.0, 1.7, 2.5, 3.4)


def gauge(axes: Axes, x: float, y: float, share: float, colour: str) -> None:
    """A half-disc of which ``share`` is filled, from the left: the trainable share of the parameters."""
    kwargs = {"s": _AREA, "linewidths": 0.8, "edgecolors": INK, "clip_on": False}
    axes.scatter([x], [y], marker=_sector(1.0), facecolors="white", zorder=3, **kwargs)  # type: ignore[arg-type]
    axes.scatter([x], [y], marker=_sector(max(share, _SLIVER)), facecolors=colour, zorder=4, **kwargs)  # type: ignore[arg-type]


def _sector(share: float) -> MarkerPath:
    """The part of the upper half-disc from the left end over ``share`` of its angle.

    Scaled by hand, because matplotlib scales a marker by its own extent: the two invisible corner
    points give every sector the same.
    """
    angles = np.linspace(np.pi, np.pi * (1 - share), max(2, round(24 * share)) + 1)
    arc = np.column_stack([np.cos(angles), np.sin(angles)])
    points = np.vstack([[0.0, 0.0], arc, [0.0, 0.0], [-1.0, -1.0], [1.0, 1.0]])
    codes = [MarkerPath.MOVETO, *[MarkerPath.LINETO] * len(arc), MarkerPath.CLOSEPOLY]
    return MarkerPath(points, [*codes, MarkerPath.MOVETO, MarkerPath.MOVETO])


def place_labels(axes: Axes, points: Sequence[tuple[float, float]], texts: Sequence[str]) -> None:
    """Write each text beside its point where it covers the least of what is there already.

    The axes' limits and size must be final. A text further off gets a thin line to its point.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    per_point = figure.dpi / 72
    centres = axes.transData.transform(np.asarray(points, dtype=float)) / per_point
    left, low, right, high = axes.get_window_extent().extents
    frame = (left / per_point, low / per_point, right / per_point, high / per_point)
    # Markers are upper half-discs around their points.
    taken = [(x - _RADIUS, y - 1, x + _RADIUS, y + _RADIUS) for x, y in centres]
    for index in sorted(range(len(texts)), key=lambda i: -centres[i][1]):
        x, y = centres[index]
        half_width, half_height = 0.31 * _FONT * len(texts[index]) + 1, 0.55 * _FONT
        best, cost, far = (x, y), float("inf"), False
        for ring in _RINGS:
            for angle in np.linspace(0, 2 * np.pi, 16, endpoint=False):
                cx = x + np.cos(angle) * (ring * _RADIUS + half_width + 1)
                cy = y + 0.35 * _RADIUS + np.sin(angle) * (ring * _RADIUS + half_height + 1)
                box = (cx - half_width, cy - half_height, cx + half_width, cy + half_height)
                this = sum(_overlap(box, other) for other in taken) + 50 * _outside(box, frame) + 2.0 * ring
                if this < cost:
                    best, cost, chosen, far = (cx, cy), this, box, ring > _RINGS[0]
        taken.append(chosen)
        _write(axes, texts[index], (x, y), best, far=far)


def _write(
    axes: Axes, text: str, point: np.ndarray | tuple[float, float], at: tuple[float, float], far: bool
) -> None:
    line = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3} if far else None
    figure = axes.get_figure(root=True)
    assert figure is not None
    data = axes.transData.inverted().transform(np.asarray(point) * figure.dpi / 72)
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


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    return float(max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1])))


def _outside(box: Sequence[float], frame: Sequence[float]) -> float:
    """How far a box reaches beyond the frame, in points."""
    left, low, right, high = (
        max(0.0, v) for v in (frame[0] - box[0], frame[1] - box[1], box[2] - frame[2], box[3] - frame[3])
    )
    return float(left + low + right + high)
