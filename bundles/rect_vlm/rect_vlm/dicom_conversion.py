"""A DICOM CT with the structures outlined in it (RTSTRUCT) as NIfTI files."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import nibabel as nib
import numpy as np
from medbundles.atomic import replacing
from medbundles.problems import Problems
from numpy.typing import NDArray

from rect_vlm.dicom_series import is_dicom
from rect_vlm.grids import VolumeGrid
from rect_vlm.rtstruct import find_structure_set, read_structures
from rect_vlm.volume_input import grid_of, read_volume

logger = logging.getLogger(__name__)


def convert_dicom(source: str | Path, output_dir: str | Path, progress: bool = True) -> Path:
    """Write `ct.nii.gz` in HU, and `structures/{name}.nii.gz`, of a DICOM folder, or of each folder in one.

    Args:
        source: folder with one CT series and perhaps an RTSTRUCT, or a folder of such folders.
        output_dir: gets the files, in folders named like those of the source if there are several.
        progress: show a progress bar.

    Raises:
        FileNotFoundError: `source` is no folder.
        ValueError: it holds no DICOM file; or, after all others are written, what could not be converted.
    """
    from tqdm import tqdm

    source, target = Path(source).expanduser(), Path(output_dir).expanduser()
    if not source.is_dir():
        raise FileNotFoundError(f"source must be a folder with DICOM files, got {source}")
    below = [source, *(path for path in sorted(source.rglob("*")) if path.is_dir())]
    folders = [folder for folder in below if _has_dicom(folder)]
    if not folders:
        raise ValueError(f"{source} must hold DICOM files, it has none")
    problems = Problems()
    for folder in tqdm(folders, desc="DICOM", disable=not progress):
        try:
            _convert(folder, target / folder.relative_to(source))
        except ValueError as error:
            problems.add("series", str(error))
    problems.raise_if_any(str(source))
    return target


def _has_dicom(folder: Path) -> bool:
    return any(is_dicom(path) for path in folder.iterdir() if path.is_file())


def _convert(folder: Path, target: Path) -> None:
    volume = read_volume(folder)
    grid = grid_of(volume)
    structures = find_structure_set(folder)
    masks = read_structures(structures, grid) if structures else {}
    _save(target / "ct.nii.gz", np.round(volume[0].numpy()).astype(np.int16), grid)
    for name, mask in masks.items():
        _save(target / "structures" / f"{re.sub(r'[^A-Za-z0-9._-]+', '_', name)}.nii.gz", mask, grid)
    logger.info("%s: CT of %s voxels with %d structures", target, "x".join(map(str, grid.shape)), len(masks))


def _save(path: Path, array: NDArray, grid: VolumeGrid) -> None:
    image = nib.Nifti1Image(array, grid.affine)
    image.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        nib.save(image, temporary)
