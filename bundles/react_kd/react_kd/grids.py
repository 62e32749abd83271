"""Voxel grids in the patient's space (mm): do two agree, where do they lie, does one cover the other."""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, NDArray


def same_grid(
    shape_a: Sequence[int], affine_a: ArrayLike, shape_b: Sequence[int], affine_b: ArrayLike
) -> bool:
    """Whether two grids hold the same voxels (to 0.1 voxel); the axes may differ in order and direction."""
    shape_a, a = canonical(shape_a, affine_a)
    shape_b, b = canonical(shape_b, affine_b)
    if tuple(shape_a) != tuple(shape_b):
        return False
    corners = corner_indices(shape_a)
    return bool(np.abs(apply(np.linalg.solve(a, b), corners) - corners).max() < 0.1)


def canonical(shape: Sequence[int], affine: ArrayLike) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Shape and affine after the axes have been brought closest to right, anterior, superior."""
    affine = np.asarray(affine, dtype=np.float64)
    orientation = nib.orientations.io_orientation(affine)
    order = np.argsort(orientation[:, 0])
    moved = affine @ nib.orientations.inv_ornt_aff(orientation, tuple(shape))
    return tuple(int(shape[i]) for i in order), moved


def corner_indices(shape: Sequence[int]) -> NDArray[np.float64]:
    """Index coordinates (8, 3) of the outer voxel centres."""
    return np.stack(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij"), -1).reshape(-1, 3).astype(float)


def apply(affine: ArrayLike, points: NDArray) -> NDArray[np.float64]:
    """Map points (N, 3) by a 4x4 affine."""
    matrix = np.asarray(affine, dtype=np.float64)
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def extent(shape: Sequence[int], affine: ArrayLike) -> str:
    """Ranges of a grid in mm for a message: "x -90..88, y -120..60, z 0..145 mm"."""
    points = apply(affine, corner_indices(shape))
    ranges = zip("xyz", points.min(0), points.max(0), strict=True)
    return ", ".join(f"{axis} {low:.0f}..{high:.0f}" for axis, low, high in ranges) + " mm"


def covered(box: ArrayLike, affine: ArrayLike, shape_b: Sequence[int], affine_b: ArrayLike) -> float:
    """Share of an index box [[low x, y, z], [high x, y, z]] of one grid that lies inside another grid."""
    low, high = np.asarray(box, dtype=np.float64)
    # 24 cells a side: the share is exact to about 1 % per axis, enough for a limit of 95 %.
    steps = (np.arange(24) + 0.5) / 24
    lattice = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    points = low - 0.5 + lattice * (high - low + 1)
    indices = apply(np.linalg.inv(np.asarray(affine_b, dtype=np.float64)), apply(affine, points))
    inside = ((indices >= -0.5) & (indices <= np.asarray(shape_b) - 0.5)).all(axis=1)
    return float(inside.mean())
