"""Axial slices of RAS arrays as radiologists see them: right side on the left, anterior on top, to scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

Limits = tuple[float, float]


def radiological(axial: NDArray) -> NDArray:
    """(X,Y), x to the patient's right and y to the front -> rows from the front, columns from the right."""
    return axial.T[::-1, ::-1]


def show(ax: Axes, axial: NDArray, spacing: Sequence[float], **options: Any) -> None:
    """Draw a slice (X,Y) with `spacing` mm; an alpha per pixel must have the shape of `radiological`."""
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.imshow(radiological(axial), aspect=spacing[1] / spacing[0], interpolation="nearest", **options)


def outline(ax: Axes, mask: NDArray, color: str) -> None:
    """Draw the border of a mask (X,Y), if it holds anything."""
    if (mask > 0.5).any():
        ax.contour(radiological(mask), levels=[0.5], colors=[color], linewidths=1.1)


def mark_sides(ax: Axes) -> None:
    """Write R and L at the borders of the view."""
    for text, x in (("R", 0.03), ("L", 0.97)):
        ax.text(x, 0.5, text, transform=ax.transAxes, ha="center", va="center", size=8, weight="bold",
                color="white", path_effects=[withStroke(linewidth=2, foreground="black")])  # fmt: skip


def extent(inside: NDArray[np.bool_], spacing: Sequence[float], margin: float) -> tuple[Limits, Limits]:
    """Limits of rows and columns of the view `margin` mm around a mask (X,Y); all of it for an empty mask."""
    view = radiological(inside) if inside.any() else np.ones_like(inside.T)
    limits = []
    for axis, step in ((1, spacing[1]), (0, spacing[0])):
        held = np.flatnonzero(view.any(axis=axis))
        first, last = max(held[0] - margin / step, 0), min(held[-1] + margin / step, view.shape[1 - axis] - 1)
        limits.append((first - 0.5, last + 0.5))
    return limits[0], limits[1]
