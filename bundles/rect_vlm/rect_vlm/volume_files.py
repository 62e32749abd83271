"""Volumes on disk, whatever their format: grid alone, or grid and stored values."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from rect_vlm.grids import LPS_TO_RAS, VolumeGrid

NIFTI = (".nii", ".nii.gz")
WANTED = "must be a NIfTI, NRRD or MetaImage file, a MedSAM2 .npz file or a folder with a DICOM series"
_ITK = (".nrrd", ".nhdr", ".mha", ".mhd")
_DAMAGE = (OSError, EOFError, zlib.error, ValueError, nib.filebasedimages.ImageFileError)


def read_grid(path: str | Path) -> VolumeGrid:
    """Grid of a volume, from the header where the format has one; errors as in `read_voxels`."""
    path = Path(path)
    if path.is_file() and path.name.lower().endswith(NIFTI):
        return _nifti_grid(_open_nifti(path))
    if path.is_dir():
        from rect_vlm.dicom_series import ct_slices, series_grid

        return series_grid(ct_slices(path))
    return read_voxels(path)[1]


def read_voxels(path: str | Path, labels: bool = False) -> tuple[NDArray, VolumeGrid]:
    """Values (X, Y, Z) of a volume and its grid; those of a DICOM series are HU already.

    Args:
        path: NIfTI, NRRD or MetaImage file, MedSAM2 .npz file or folder of one DICOM series.
        labels: read a label map: of an .npz file its `gts`.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it is damaged or of another kind; names the file.
    """
    path = Path(path)
    name = path.name.lower()
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; it {WANTED}")
    if path.is_dir():
        from rect_vlm.dicom_series import read_series

        return read_series(path)
    if name.endswith(NIFTI):
        image = _open_nifti(path)
        try:
            return np.asanyarray(image.dataobj).reshape(_shape(image)), _nifti_grid(image)
        except _DAMAGE as error:
            raise ValueError(f"{path}: its voxels cannot be read ({_told(error)})") from error
    if name.endswith(".npz"):
        from rect_vlm.npz import read_npz

        volume = read_npz(path)
        if labels and volume.ids is None:
            raise ValueError(f"{path}, key gts: required for masks, missing")
        return (volume.ids if labels and volume.ids is not None else volume.image), volume.grid
    if name.endswith(_ITK):
        return _read_itk(path)
    raise ValueError(f"{path}: {WANTED}")


def _open_nifti(path: Path) -> Any:
    try:
        return nib.load(path)
    except _DAMAGE as error:
        raise ValueError(f"{path}: must be a NIfTI file ({_told(error)})") from error


def _shape(image: Any) -> tuple[int, ...]:
    """Shape without trailing axes of length one beyond the third."""
    shape = tuple(int(size) for size in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _nifti_grid(image: Any) -> VolumeGrid:
    return VolumeGrid(_shape(image), np.asarray(image.affine, dtype=np.float64))


def _read_itk(path: Path) -> tuple[NDArray, VolumeGrid]:
    import itk

    try:
        image = itk.imread(str(path))
    except RuntimeError as error:
        raise ValueError(f"{path}: ITK cannot read it ({_told(error)})") from error
    values = np.asarray(itk.array_from_image(image)).T
    affine = np.eye(4)
    size = image.GetImageDimension()
    if size == 3:
        affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.asarray(image.GetSpacing())
        affine[:3, 3] = np.asarray(image.GetOrigin())
    return values, VolumeGrid(tuple(values.shape), LPS_TO_RAS @ affine)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[-1]}"
