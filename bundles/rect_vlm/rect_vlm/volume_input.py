"""One volume from wherever it is, a file, a DICOM folder, an array, as checked HU with an affine."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any, TypeAlias

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rect_vlm.grids import VolumeGrid, grid_problem
from rect_vlm.hu import INTENSITIES, to_hu, window_to_hu
from rect_vlm.volume_files import read_voxels

logger = logging.getLogger(__name__)

Source: TypeAlias = "str | os.PathLike[str] | NDArray | Tensor | nib.spatialimages.SpatialImage"
# Of an array that comes without one: LPS, 0.75 x 0.75 x 1.5 mm.
DEFAULT_AFFINE = np.diag([-0.75, -0.75, 1.5, 1.0])


def read_volume(
    source: Source,
    affine: ArrayLike | None = None,
    intensity: str = "hu",
    hu_source: str = "nifti",
    slope: float | None = None,
    intercept: float | None = None,
    spacing: Sequence[float] | None = None,
) -> MetaTensor:
    """HU (1, X, Y, Z) float32 with its affine (voxel index to RAS mm), checked to be a chest CT.

    Args:
        source: file (NIfTI, NRRD, MetaImage, MedSAM2 .npz), folder of one DICOM series, nibabel image,
            MetaTensor, or an array (X, Y, Z) as `nibabel.load(...).get_fdata()` gives it.
        affine: of an array; without one a warning is logged and LPS 0.75 x 0.75 x 1.5 mm is assumed.
        intensity: "hu", or "uint8_window" for windowed values of 0..255, which become -1000..1000.
        hu_source: "nifti" takes the values as HU, "metadata" as slope * value + intercept.
        slope, intercept: of CT-RATE's metadata table.
        spacing: mm along X, Y, Z that replace those of the header; None keeps them.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: not a 3-D volume, voxel sizes beyond the limits, missing slope or intercept, values that
            are no HU of a chest; names the file, what is required and what came.
    """
    if intensity not in INTENSITIES:
        raise ValueError(f"intensity must be one of {', '.join(INTENSITIES)}, got {intensity!r}")
    where = str(source) if isinstance(source, str | os.PathLike) else "volume"
    if affine is not None and where != "volume":
        raise ValueError(f"{where}: an affine belongs to an array, the file has its own")
    stored, grid = stored_values(source, affine)
    problem = grid_problem(grid)
    if spacing is not None and not problem:
        grid = grid.with_spacing(spacing)
        problem = grid_problem(grid)
    if problem:
        raise ValueError(f"{where}: {problem}")
    try:
        hu = window_to_hu(stored) if intensity != "hu" else to_hu(stored, hu_source, slope, intercept)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return MetaTensor(torch.from_numpy(np.array(hu))[None], affine=torch.from_numpy(grid.affine))


def grid_of(volume: MetaTensor) -> VolumeGrid:
    """Grid of a volume (1, X, Y, Z)."""
    return VolumeGrid(tuple(volume.shape[1:]), np.asarray(volume.affine, dtype=np.float64))


def stored_values(
    source: Source,
    affine: ArrayLike | None = None,
    default_affine: ArrayLike | None = None,
    labels: bool = False,
) -> tuple[NDArray, VolumeGrid]:
    """Values (X, Y, Z) as they are stored, and their grid.

    Args:
        source: as in `read_volume`.
        affine: replaces the one of an image or array.
        default_affine: of an array without one; None logs a warning and assumes LPS 0.75 x 0.75 x 1.5 mm.
        labels: of an .npz file take the ids.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: damaged, or no kind of volume.
    """
    if isinstance(source, str | os.PathLike):
        return read_voxels(os.path.expanduser(source), labels)
    array, own = _array(source)
    chosen = own if affine is None else affine
    if chosen is None and default_affine is None:
        logger.warning("the array has no affine: taken as X, Y, Z in LPS with 0.75 x 0.75 x 1.5 mm")
        default_affine = DEFAULT_AFFINE
    matrix = np.asarray(default_affine if chosen is None else chosen, dtype=np.float64)
    if array.ndim == 3 and matrix.shape != (4, 4):  # another shape is reported with its own message
        raise ValueError(f"affine must be (4, 4), got {matrix.shape}")
    return array, VolumeGrid(tuple(array.shape), matrix)


def _array(source: Any) -> tuple[NDArray, ArrayLike | None]:
    """Array, without an axis for one channel, and affine of something in memory."""
    affine: ArrayLike | None = None
    if isinstance(source, nib.spatialimages.SpatialImage):
        array, affine = np.asanyarray(source.dataobj), source.affine
    elif isinstance(source, MetaTensor):
        array, affine = source.detach().cpu().numpy(), source.affine.cpu().numpy()
    elif isinstance(source, Tensor):
        array = source.detach().cpu().numpy()
    elif isinstance(source, np.ndarray):
        array = source
    else:
        raise ValueError(
            f"a volume must be a path, nibabel image, MetaTensor or array, got {type(source).__name__}"
        )
    if array.ndim == 4 and 1 in (array.shape[0], array.shape[-1]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    return array, affine
