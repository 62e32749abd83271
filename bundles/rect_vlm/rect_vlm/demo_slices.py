"""Slices of a CT for the demo page, in three planes and windows, with lesions one by one."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from rect_vlm.demo_scan import Scan
from rect_vlm.findings import LESIONS, lesion_title
from rect_vlm.slice_figures import LUNG_HU, OUTLINES, SOFT_TISSUE_HU, cut, fullest_slice

LONG_SIDE = 720  # pixels
FILL = 0.22  # opacity of a lesion inside its outline
QUALITY = 88


@dataclass(frozen=True)
class Plane:
    """A way to cut a RAS volume: across an axis, with two others along the picture.

    scroll says where the slices run; directions are those at the left, right, upper and lower border.
    """

    axis: int
    along: int
    up: int
    scroll: str
    directions: tuple[str, str, str, str]


PLANES = {
    "Axial": Plane(2, 0, 1, "feet to head", ("R", "L", "A", "P")),
    "Coronal": Plane(1, 0, 2, "back to front", ("R", "L", "S", "I")),
    "Sagittal": Plane(0, 1, 2, "left to right", ("A", "P", "S", "I")),
}
WINDOWS = {"Lung": LUNG_HU, "Mediastinum": SOFT_TISSUE_HU, "Bone": (-500.0, 1300.0)}


def slice_count(scan: Scan, plane: str) -> int:
    """Number of slices across a plane."""
    return int(scan.hu.shape[PLANES[plane].axis])


def best_slice(scan: Scan, plane: str, lesion: str | None = None) -> int:
    """Index of the slice with most of a lesion, by default of the largest one; the middle without any."""
    lesion = lesion or next(iter(scan.outlined), None)
    if lesion is None:
        return slice_count(scan, plane) // 2
    return fullest_slice(scan.mask(lesion), PLANES[plane].axis)


def draw_slice(
    scan: Scan, plane: str, index: int, window: str, lesions: Collection[str]
) -> NDArray[np.uint8]:
    """A slice (rows, columns, 3) of square pixels with the outlines of some lesions.

    The patient's right, or front in sagittal slices, is on the left. An index beyond the scan is brought
    back to its end.
    """
    from PIL import Image

    view, (low, high) = PLANES[plane], WINDOWS[window]
    index = int(np.clip(index, 0, slice_count(scan, plane) - 1))
    grey = np.clip((cut(scan.hu, view.axis, index).astype(np.float32) - low) / (high - low), 0, 1)
    size = picture_size(scan, plane)
    picture = Image.fromarray((grey * 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    rgb = np.repeat(np.asarray(picture)[..., None], 3, axis=-1)
    bits = Image.fromarray(np.ascontiguousarray(cut(scan.lesions, view.axis, index)))
    shown = np.asarray(bits.resize(size, Image.Resampling.NEAREST))
    for k, lesion in enumerate(LESIONS):
        if lesion in lesions:
            _outline(rgb, (shown >> k) & 1 > 0, OUTLINES[lesion])
    return rgb


def picture_size(scan: Scan, plane: str) -> tuple[int, int]:
    """Columns and rows of the picture of a slice, in proportion to its millimetres."""
    view, spacing = PLANES[plane], nib.affines.voxel_sizes(scan.affine)
    width, height = (scan.hu.shape[axis] * spacing[axis] for axis in (view.along, view.up))
    scale = LONG_SIDE / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def slice_html(scan: Scan, plane: str, index: int, window: str, lesions: Collection[str]) -> str:
    """A slice as HTML with the directions of the patient and its place; the picture is inside."""
    from PIL import Image

    view = PLANES[plane]
    index = int(np.clip(index, 0, slice_count(scan, plane) - 1))
    stream = io.BytesIO()
    Image.fromarray(draw_slice(scan, plane, index, window, lesions)).save(stream, "JPEG", quality=QUALITY)
    data = base64.b64encode(stream.getvalue()).decode()
    place = _place(scan, view.axis, index)
    there = [name for name in LESIONS if name in lesions and cut(scan.mask(name), view.axis, index).any()]
    told = ", ".join(lesion_title(name) for name in there) or "no outlined lesion"
    marks = zip(("left", "right", "top", "bottom"), view.directions, strict=True)
    return (
        f'<figure class="slice"><div class="frame"><img alt="{plane} slice {index + 1}, {told}" '
        f'src="data:image/jpeg;base64,{data}">'
        + "".join(f'<span class="direction {side}">{letter}</span>' for side, letter in marks)
        + f"</div><figcaption>{plane} {index + 1} of {slice_count(scan, plane)} · {place}"
        + f" · {window.lower()} window</figcaption></figure>"
    )


def _outline(rgb: NDArray[np.uint8], inside: NDArray[np.bool_], color: str) -> None:
    from scipy import ndimage

    if not inside.any():
        return
    paint = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float32)
    rgb[inside] = (rgb[inside] * (1 - FILL) + paint * FILL).astype(np.uint8)
    rgb[inside & ~ndimage.binary_erosion(inside, iterations=2, border_value=1)] = paint.astype(np.uint8)


def _place(scan: Scan, axis: int, index: int) -> str:
    """Where a slice lies in the scanner's coordinates."""
    middle = [(size - 1) / 2 for size in scan.hu.shape]
    middle[axis] = index
    millimetres = float(nib.affines.apply_affine(scan.affine, middle)[axis])
    return f"{'xyz'[axis]} {millimetres:.0f} mm".replace("-", "−")
