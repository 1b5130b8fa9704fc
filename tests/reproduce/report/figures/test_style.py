"""The colours of the families, as readers with a colour vision deficiency see them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.colors import rgb_to_hsv, to_rgb

from lfreeze.strategy import paper_strategies
from reproduce.report.figures.style import colour, families_of, family_colour

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
_VISION = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(name: str, vision: str) -> np.ndarray:
    """CIELAB of a colour as it is seen (D65)."""
    rgb = np.array(to_rgb(name))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = _TO_XYZ @ np.clip(_VISION[vision] @ linear, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", _VISION)
def test_no_two_families_look_alike(vision: str) -> None:
    families = families_of(paper_strategies())
    distances = {
        (a, b): float(np.linalg.norm(lab(family_colour(a), vision) - lab(family_colour(b), vision)))
        for a, b in itertools.combinations(families, 2)
    }
    # A difference of 10 is seen at a glance.
    assert min(distances.values()) > 10, sorted(distances.items(), key=lambda item: item[1])[:3]


def test_the_hues_of_the_papers_figure_4() -> None:
    hues = {
        "TOP25": (90, 180),
        "BOT25": (190, 250),
        "INT25": (345, 375),
        "ADT-L25": (50, 65),
        "ADT-H25": (20, 40),
    }
    for strategy, (low, high) in hues.items():
        hue = 360 * rgb_to_hsv(to_rgb(colour(strategy)))[0]
        assert low <= hue <= high or low <= hue + 360 <= high, (strategy, hue)
