"""Pictures of one chest CT: slices with outlines of lesions as radiologists see them, findings as bars.

Volumes are RAS arrays (X, Y, Z): towards the patient's right, front and head (`to_ras`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from medbundles.figure_style import COLORS, INK, LINE, REPORT_WIDTH, SOFT, frame, quiet
from numpy.typing import ArrayLike, NDArray

from rect_vlm.findings import LESIONS, lesion_title

LUNG_HU, SOFT_TISSUE_HU = (-1350.0, 150.0), (-160.0, 240.0)
SOFT_LESIONS = ("pericardial_effusion", "pleural_effusion")  # seen in the soft-tissue window
OUTLINES = dict(zip(LESIONS, ("#E69F00", "#56B4E9", "#FF7CC8", "#F0E442", "#FF5A36"), strict=True))
BODY_HU = -400.0
MARGIN_MM = 12.0  # around the body
LATTICE_MM = 3.0  # of the voxels that tell the body
AXIAL, CORONAL = 2, 1  # the axis a slice is cut across
ROWS, COLUMNS = 2, 4

Spacing = Sequence[float]


@dataclass(frozen=True)
class Panel:
    """One slice: the axis it is cut across, its index, its window (HU) and its heading."""

    axis: int
    index: int
    window: tuple[float, float]
    title: str


def to_ras(array: NDArray, affine: ArrayLike) -> tuple[NDArray, NDArray[np.float64]]:
    """Turn an array (X, Y, Z) and its affine (4, 4) so that the axes run nearest to right, front and head."""
    matrix = np.asarray(affine, dtype=np.float64)
    orientation = nib.orientations.io_orientation(matrix)
    turned = np.asarray(nib.orientations.apply_orientation(array, orientation))
    return turned, matrix @ nib.orientations.inv_ornt_aff(orientation, array.shape)


def slice_montage(
    hu: NDArray, labels: NDArray, affine: ArrayLike, title: str = "", subtitle: str = ""
) -> Figure:
    """Eight slices: of every lesion the one that shows most of it, a coronal one, and axial ones in between.

    Args:
        hu: (X, Y, Z), axes in any order and direction.
        labels: (X, Y, Z), 0 or 1 + index in LESIONS, on the same voxels.
        affine: (4, 4) from voxel to RAS mm, which tells the axes.
        title, subtitle: above the slices.

    Raises:
        ValueError: the volumes differ in shape.
    """
    if hu.shape != labels.shape or hu.ndim != 3:
        raise ValueError(f"hu and labels must share one shape (X, Y, Z), got {hu.shape} and {labels.shape}")
    (volume, ras), (lesions, _) = to_ras(hu, affine), to_ras(labels, affine)
    spacing = nib.affines.voxel_sizes(ras)
    view = body_box(volume, spacing)
    width = REPORT_WIDTH / COLUMNS - 0.1
    x, y, z = (float(np.ptp(side) * mm) for side, mm in zip(view, spacing, strict=True))
    height = min(width * max(y, z) / x, 1.5 * width)
    figure, axes = frame(title, subtitle, ROWS * (height + 0.3) + 0.3, rows=ROWS, columns=COLUMNS)
    for ax, panel in zip(axes, choose_panels(volume, lesions, ras), strict=True):
        _draw(ax, volume, lesions, panel, spacing, view)
    _name_outlines(figure, lesions)
    return figure


def choose_panels(volume: NDArray, lesions: NDArray, affine: NDArray[np.float64]) -> list[Panel]:
    """The slices to show of RAS volumes: those of lesions, axial ones spread over the body, a coronal one."""
    outlined = [k for k in range(1, len(LESIONS) + 1) if (lesions == k).any()]
    panels = []
    for k in outlined:
        name = LESIONS[k - 1]
        window = SOFT_TISSUE_HU if name in SOFT_LESIONS else LUNG_HU
        where = fullest_slice(lesions == k, AXIAL)
        panels.append(Panel(AXIAL, where, window, f"{lesion_title(name)}\n{_millimetres(affine, where)}"))
    depth = volume.shape[AXIAL]
    spread = ROWS * COLUMNS - 1 - len(panels)
    overview = [int((i + 0.5) * depth / spread) for i in range(spread)][::-1]  # the head comes first
    panels += [Panel(AXIAL, i, LUNG_HU, _millimetres(affine, i)) for i in overview]
    middle = fullest_slice(lesions > 0, CORONAL) if outlined else fullest_slice(volume > BODY_HU, CORONAL)
    return [*panels, Panel(CORONAL, middle, LUNG_HU, "coronal")]


def fullest_slice(mask: NDArray[np.bool_], axis: int) -> int:
    """Index of the slice across an axis that holds most of a mask."""
    return int(mask.sum(axis=tuple(other for other in range(3) if other != axis)).argmax())


def body_box(volume: NDArray, spacing: Spacing) -> list[tuple[float, float]]:
    """First and last voxel along X, Y, Z of the body with a margin; of the volume where there is no body."""
    from scipy import ndimage

    steps = [max(1, round(LATTICE_MM / mm)) for mm in spacing]
    parts, count = ndimage.label(volume[tuple(slice(None, None, step) for step in steps)] > BODY_HU)
    # The table is dense as well: the body is the largest connected part.
    body = parts == np.bincount(parts.ravel())[1:].argmax() + 1 if count else np.ones_like(parts, dtype=bool)
    box = []
    for axis, (mm, step) in enumerate(zip(spacing, steps, strict=True)):
        held = np.flatnonzero(body.any(axis=tuple(other for other in range(3) if other != axis))) * step
        ends = held[0] - MARGIN_MM / mm, held[-1] + step - 1 + MARGIN_MM / mm
        box.append((max(ends[0], 0.0), min(ends[1], volume.shape[axis] - 1.0)))
    return box


def cut(volume: NDArray, axis: int, index: int) -> NDArray:
    """A slice of a RAS volume as a picture: the patient's right on the left, front or head on top."""
    plane = np.take(volume, index, axis=axis)  # (X, Y) or (X, Z)
    return plane.T[::-1, ::-1]


def _draw(
    ax: Axes,
    volume: NDArray,
    lesions: NDArray,
    panel: Panel,
    spacing: Spacing,
    view: Sequence[tuple[float, float]],
) -> None:
    up = 1 if panel.axis == AXIAL else 2  # the axis that runs up the picture
    low, high = panel.window
    picture = cut(volume, panel.axis, panel.index)
    ax.imshow(picture, cmap="gray", vmin=low, vmax=high, aspect=spacing[up] / spacing[0])
    found = cut(lesions, panel.axis, panel.index)
    for k, lesion in enumerate(LESIONS, start=1):
        if (found == k).any():
            ax.contour(found == k, levels=[0.5], colors=[OUTLINES[lesion]], linewidths=1.0)
    right, top = picture.shape[1] - 1, picture.shape[0] - 1  # the picture counts from the other ends
    columns, rows = [right - side for side in view[0]], [top - side for side in view[up]]
    ax.set(xlim=(columns[1] - 0.5, columns[0] + 0.5), ylim=(rows[0] + 0.5, rows[1] - 0.5))
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_title(panel.title, fontsize=7.5, color=INK)
    mark_directions(ax, ("R", "L", *(("A", "P") if panel.axis == AXIAL else ("S", "I"))))


def mark_directions(ax: Axes, names: tuple[str, str, str, str]) -> None:
    """Write the directions of the patient at the left, right, upper and lower border of a picture."""
    places = ((0.05, 0.5), (0.95, 0.5), (0.5, 0.94), (0.5, 0.06))
    for name, (x, y) in zip(names, places, strict=True):
        ax.text(
            x, y, name, transform=ax.transAxes, ha="center", va="center", size=7, weight="bold",
            color="white", path_effects=[withStroke(linewidth=1.5, foreground="black")],
        )  # fmt: skip


def _name_outlines(figure: Figure, lesions: NDArray) -> None:
    lines = [
        Line2D([], [], color=OUTLINES[lesion], lw=2.5, label=lesion_title(lesion))
        for k, lesion in enumerate(LESIONS, start=1)
        if (lesions == k).any()
    ]
    if lines:
        figure.legend(handles=lines, loc="outside lower center", ncols=5, fontsize=7.5, frameon=False)


def _millimetres(affine: NDArray[np.float64], index: int) -> str:
    """Height of an axial slice in the scanner's coordinates, which no order of slices changes."""
    height = affine[2, 2] * index + affine[2, 3]
    return f"z {height:.0f} mm".replace("-", "−")


def finding_bars(
    probabilities: Mapping[str, float],
    threshold: float | Mapping[str, float] = 0.5,
    labels: Mapping[str, float | None] | None = None,
    title: str = "Findings",
) -> Figure:
    """Probability of every finding, the likeliest on top, dark where it is above its threshold.

    Args:
        probabilities: by finding.
        threshold: drawn as a line; one for all or one by finding.
        labels: 1 or 0 for what is known of the scan, marked at the right border.
        title: heading.
    """
    known = {name for name, value in (labels or {}).items() if value == 1}
    note = "● the scan's label says it is present" if labels else ""
    figure, (ax,) = frame(title, note, 0.35 + 0.2 * len(probabilities), width=0.75 * REPORT_WIDTH)
    names = sorted(probabilities, key=lambda name: probabilities[name])
    values = [probabilities[name] for name in names]
    limits = [threshold[name] if isinstance(threshold, Mapping) else threshold for name in names]
    present = [value > limit for value, limit in zip(values, limits, strict=True)]
    ax.barh(names, values, color=[COLORS[0] if yes else LINE for yes in present], height=0.72)
    for y, (name, value) in enumerate(zip(names, values, strict=True)):
        ax.text(value + 0.01, y, f"{value:.2f}", va="center", size=7.5, color=INK)
        if name in known:
            ax.plot(1.11, y, "o", color=COLORS[1], ms=5, clip_on=False)
    rows = np.arange(len(names))
    ax.vlines(limits, rows - 0.5, rows + 0.5, color=SOFT, lw=1, ls=":")
    ax.set(xlim=(0, 1), ylim=(-0.6, len(names) - 0.4))
    quiet(ax, "probability", grid="x")
    ax.tick_params(axis="y", labelsize=8, length=0)
    return figure
