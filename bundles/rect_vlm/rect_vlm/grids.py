"""Voxel grids in the patient's space (mm): which are usable, and how a mask is laid on the grid of its CT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, NDArray

MIN_VOXELS = 8  # along every axis; less is a picture or a few slices, not a chest
SPACING_LIMITS = (0.1, 12.5)  # mm
MAX_ANISOTROPY = 20.0  # thick slices of 5 mm with 0.3 mm pixels (16.7) are in use
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class VolumeGrid:
    """Shape (X, Y, Z) and affine (4, 4), from voxel index to RAS mm, of a volume."""

    shape: tuple[int, ...]
    affine: NDArray[np.float64]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """mm per voxel along X, Y, Z."""
        x, y, z = (float(size) for size in nib.affines.voxel_sizes(self.affine))
        return x, y, z

    def with_spacing(self, spacing: Sequence[float]) -> VolumeGrid:
        """The same directions and origin with other voxel sizes (mm)."""
        affine = self.affine.copy()
        affine[:3, :3] *= np.asarray(spacing, dtype=np.float64) / self.spacing
        return VolumeGrid(self.shape, affine)


def grid_problem(grid: VolumeGrid) -> str | None:
    """What makes a grid unusable for a chest CT: not 3-D, no voxel size, spacing beyond the limits."""
    if len(grid.shape) != 3 or min(grid.shape) < MIN_VOXELS:
        return f"must be a 3-D volume of at least {MIN_VOXELS} voxels along each axis, got shape {grid.shape}"
    if not np.isfinite(grid.affine).all() or abs(np.linalg.det(grid.affine[:3, :3])) < 1e-9:
        return f"has no usable voxel size, its affine is {np.round(grid.affine, 3).tolist()}"
    low, high = SPACING_LIMITS
    smallest, largest = min(grid.spacing), max(grid.spacing)
    if smallest < low or largest > high or largest > MAX_ANISOTROPY * smallest:
        return (
            f"voxels must measure {low:g} to {high:g} mm, the longest side at most {MAX_ANISOTROPY:g} times "
            f"the shortest, got {' x '.join(f'{size:.3g}' for size in grid.spacing)} mm"
        )
    return None


def other_grid_problem(mask: VolumeGrid, image: VolumeGrid) -> str | None:
    """Why a mask does not lie on the voxels of its CT (0.1 voxel); order and direction of axes may differ."""
    shape, affine = _canonical(mask)
    wanted_shape, wanted_affine = _canonical(image)
    if shape != wanted_shape:
        return f"must lie on the grid of its CT, shape {image.shape}, got shape {mask.shape}"
    ends = [(0, size - 1) for size in shape]
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), -1).reshape(-1, 3)
    moved = nib.affines.apply_affine(np.linalg.solve(wanted_affine, affine), corners)
    off = float(np.abs(moved - corners).max())
    if off > 0.1:
        return f"must lie on the grid of its CT, got one that is up to {off:.1f} voxels away from it"
    return None


def on_axes_of(array: NDArray, affine: ArrayLike, image: VolumeGrid) -> NDArray:
    """Turn an array of the same voxels so that its axes run like those of `image`."""
    here, there = (nib.orientations.io_orientation(np.asarray(a)) for a in (affine, image.affine))
    return np.asarray(nib.orientations.apply_orientation(array, nib.orientations.ornt_transform(here, there)))


def _canonical(grid: VolumeGrid) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Shape and affine after the axes have been brought closest to right, anterior, superior."""
    orientation = nib.orientations.io_orientation(grid.affine)
    order = np.argsort(orientation[:, 0])
    moved = grid.affine @ nib.orientations.inv_ornt_aff(orientation, grid.shape)
    return tuple(int(grid.shape[i]) for i in order), moved
