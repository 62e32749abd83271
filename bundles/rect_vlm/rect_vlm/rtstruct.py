"""Structures that a radiotherapist outlined (DICOM RTSTRUCT) as masks on the grid of their CT."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rect_vlm.dicom_series import dicom_headers
from rect_vlm.grids import LPS_TO_RAS, VolumeGrid

MAX_OFF_SLICE = 0.5  # a contour belongs to the nearest slice, at most half a slice away


def find_structure_set(folder: str | Path) -> Path | None:
    """The RTSTRUCT file of a folder, or None; ValueError when there are two."""
    headers = dicom_headers(Path(folder), ["Modality"])
    found = [path for path, header in headers.items() if header.get("Modality") == "RTSTRUCT"]
    if len(found) > 1:
        raise ValueError(f"{folder}: must hold one RTSTRUCT file, got {', '.join(p.name for p in found)}")
    return found[0] if found else None


def read_structures(path: str | Path, grid: VolumeGrid) -> dict[str, NDArray[np.uint8]]:
    """Masks (X, Y, Z) by structure name; a voxel is inside when its centre is.

    Contours of one slice are combined by exclusive or, so that an inner contour is a hole.

    Args:
        path: the RTSTRUCT file.
        grid: of the CT, as `series_grid` gives it, its slices along Z.

    Raises:
        ValueError: no RTSTRUCT, or a contour that does not lie in a slice of the CT; names the structure.
    """
    import pydicom

    data = pydicom.dcmread(path)
    if data.get("Modality") != "RTSTRUCT":
        raise ValueError(f"{path}: must be a DICOM RTSTRUCT, got modality {data.get('Modality')}")
    names = {int(item.ROINumber): str(item.ROIName) for item in data.StructureSetROISequence}
    to_index = np.asarray(np.linalg.inv(grid.affine) @ LPS_TO_RAS, dtype=np.float64)
    masks: dict[str, NDArray[np.uint8]] = {}
    for structure in data.get("ROIContourSequence", ()):
        name = names.get(int(structure.ReferencedROINumber), str(structure.ReferencedROINumber))
        try:
            masks[name] = _fill(_contours(structure, to_index), grid.shape)
        except ValueError as error:
            raise ValueError(f"{path}, structure {name}: {error}") from error
    return masks


def _contours(structure: Any, to_index: NDArray[np.float64]) -> Iterable[NDArray[np.float64]]:
    """Corners (P, 3) in voxel indices of every closed contour."""
    for contour in structure.get("ContourSequence", ()):
        if contour.ContourGeometricType == "CLOSED_PLANAR":
            points = np.asarray(contour.ContourData, dtype=np.float64).reshape(-1, 3)
            yield points @ to_index[:3, :3].T + to_index[:3, 3]


def _fill(contours: Iterable[NDArray[np.float64]], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    from matplotlib.path import Path as Outline

    mask = np.zeros(shape, dtype=bool)
    for corners in contours:
        level = round(float(corners[:, 2].mean()))
        if not 0 <= level < shape[2] or np.abs(corners[:, 2] - level).max() > MAX_OFF_SLICE:
            raise ValueError(
                f"a contour must lie in one of the CT's {shape[2]} slices, got slice "
                f"{corners[:, 2].min():.2f}..{corners[:, 2].max():.2f}"
            )
        low = np.maximum(np.floor(corners[:, :2].min(axis=0)).astype(int), 0)
        high = np.minimum(np.ceil(corners[:, :2].max(axis=0)).astype(int) + 1, shape[:2])
        if (high <= low).any():
            raise ValueError(f"a contour of slice {level} lies beside the CT")
        x, y = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]), indexing="ij")
        inside = Outline(corners[:, :2]).contains_points(np.stack([x.ravel(), y.ravel()], axis=-1))
        mask[low[0] : high[0], low[1] : high[1], level] ^= inside.reshape(x.shape)
    return mask.astype(np.uint8)
