"""Figures of the walk-through of one real CT: what fewer photons do to it, and what the network gets of it.

Slices are (X, Y) of RAS volumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from medbundles.figure_style import COLORS, INK, REPORT_WIDTH, frame, quiet
from numpy.typing import NDArray

from react_kd.image_figures import ABDOMEN_HU, OUTLINE
from react_kd.slice_view import extent, mark_sides, outline, show

LIVER_OUTLINE = "#E69F00"
DIFFERENCE_HU = 300.0


@dataclass(frozen=True)
class Tile:
    """One slice (X, Y) of a panel, with its colour range, voxel size in mm and masks (X, Y) to outline."""

    title: str
    image: NDArray
    spacing: Sequence[float]
    limits: tuple[float, float] = ABDOMEN_HU
    cmap: str = "gray"
    liver: NDArray | None = None
    mass: NDArray | None = None


def low_dose_panel(
    scans: Mapping[str, NDArray],
    noise: Sequence[Mapping[str, Any]],
    body: NDArray,
    spacing: Sequence[float],
    *,
    title: str,
    subtitle: str = "",
) -> Figure:
    """One slice at full dose (first of `scans`) and at lower doses, and below what the noise changed.

    `scans` maps a name to (X, Y) in HU; `noise` has one row per further scan with `photons`, `noise_hu`, and
    one row before them for the full dose; every row has `mean_hu` and `sd_hu` of the liver. `body` (X, Y)
    sets the view.
    """
    rows, columns = extent(body > 0, spacing, margin=5)
    width = (REPORT_WIDTH - 0.9) / len(scans)
    height = width * np.ptp(rows) * spacing[1] / (np.ptp(columns) * spacing[0])
    figure, axes = frame(title, subtitle, 1.1 + 2 * height, rows=2, columns=len(scans))
    full = next(iter(scans.values()))
    for i, ((name, scan), row) in enumerate(zip(scans.items(), noise, strict=True)):
        show(axes[i], scan, spacing, cmap="gray", vmin=ABDOMEN_HU[0], vmax=ABDOMEN_HU[1])
        measured = f"liver {row['mean_hu']:.0f} ± {row['sd_hu']:.0f} HU"
        axes[i].set_title(f"{name}\n{measured}", fontsize=8.5, color=INK)
        if i:
            below = axes[i + len(scans)]
            show(below, scan - full, spacing, cmap="RdBu_r", vmin=-DIFFERENCE_HU, vmax=DIFFERENCE_HU)
            below.set_title(f"minus full dose;\nnoise {row['noise_hu']:.0f} HU", fontsize=8.5, color=INK)
            below.set(xlim=columns, ylim=rows[::-1])
        axes[i].set(xlim=columns, ylim=rows[::-1])
    mark_sides(axes[0])
    _noise_curve(axes[len(scans)], noise[1:])
    for first, bar_range, cmap in (
        (0, ABDOMEN_HU, "gray"),
        (len(scans), (-DIFFERENCE_HU, DIFFERENCE_HU), "RdBu_r"),
    ):
        bar = figure.colorbar(
            ScalarMappable(Normalize(*bar_range), cmap),
            ax=axes[first : first + len(scans)], shrink=0.85, pad=0.015, aspect=18,
        )  # fmt: skip
        bar.set_label("HU", size=8.5)
        bar.ax.tick_params(labelsize=8)
    return figure


def tiles_panel(tiles: Sequence[Tile], columns: int, *, title: str, subtitle: str = "") -> Figure:
    """Slices in rows of `columns`, each in its own grey or colour range, which stands on its bar."""
    rows = -(-len(tiles) // columns)
    heights = [t.image.shape[1] * t.spacing[1] / (t.image.shape[0] * t.spacing[0]) for t in tiles]
    height = max(heights) * (REPORT_WIDTH - 0.6) / columns + 0.65
    figure, axes = frame(title, subtitle, height * rows, rows=rows, columns=columns)
    for ax, tile in zip(axes, tiles, strict=True):
        options: dict[str, Any] = {"cmap": tile.cmap, "vmin": tile.limits[0], "vmax": tile.limits[1]}
        show(ax, tile.image, tile.spacing, **options)
        for mask, color in ((tile.liver, LIVER_OUTLINE), (tile.mass, OUTLINE)):
            if mask is not None:
                outline(ax, mask, color)
        ax.set_title(tile.title, fontsize=8, color=INK)
        colors = ScalarMappable(Normalize(*tile.limits), tile.cmap)
        bar = figure.colorbar(colors, ax=ax, orientation="horizontal", pad=0.03, shrink=0.85, aspect=22)
        bar.ax.tick_params(labelsize=7, length=2)
    mark_sides(axes[0])
    return figure


def _noise_curve(ax: Axes, noise: Sequence[Mapping[str, Any]]) -> None:
    photons, sd = ([row[key] for row in noise] for key in ("photons", "noise_hu"))
    quiet(ax, xlabel="photons per ray", title="")
    ax.loglog(photons, sd, "o-", color=COLORS[0], ms=4, lw=1.5)
    ax.set_title("noise in the liver, HU", fontsize=8.5, color=INK)
    ax.tick_params(labelsize=7.5, which="both")
    ax.minorticks_off()
    ax.set_yticks(sd, [f"{value:.0f}" for value in sd])
