"""Where the outlines of the five lesions lie, and how one is read.

Own layout: `lesion_masks/{lesion}/{volume}.nii.gz`, not zero inside. CT-RATE's own segmentations
(`ts_seg`, by TotalSegmentator) hold two effusions and nodules; they are used where there is no other mask.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from medbundles.problems import Problems
from numpy.typing import NDArray
from torch import Tensor

from rect_vlm.findings import LESIONS
from rect_vlm.grids import VolumeGrid, on_axes_of, other_grid_problem
from rect_vlm.volume_input import Source, stored_values

FOLDER = "lesion_masks"
# Folder below ts_seg and the value of the lesion in its label maps.
SEGMENTED: dict[str, tuple[str, int]] = {
    "pericardial_effusion": ("ts_pleural_pericard_effusion", 3),
    "pleural_effusion": ("ts_pleural_pericard_effusion", 2),
    "lung_nodule": ("ts_lung_nodules", 2),
}


def own_masks(dataset_dir: Path, problems: Problems) -> dict[str, dict[str, str]]:
    """{volume: {lesion: file}} of the folder `lesion_masks`; a folder of an unknown lesion is a problem."""
    folder = dataset_dir / FOLDER
    found: dict[str, dict[str, str]] = {}
    if not folder.is_dir():
        return found
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        if place.name not in LESIONS:
            near = get_close_matches(place.name, LESIONS, 1, 0)[0]
            line = f"must be named like a lesion ({', '.join(LESIONS)}), the nearest is {near}"
            problems.add(FOLDER, f"{place}: {line}")
            continue
        for path in sorted(place.glob("*.nii.gz")):
            found.setdefault(path.name.removesuffix(".nii.gz"), {})[place.name] = str(path)
    return found


def segmented_masks(dataset_dir: Path, place: str) -> dict[str, tuple[str, int]]:
    """{lesion: (file, value)} of CT-RATE's own segmentations of the volume at `place` in its tree."""
    found = {}
    for lesion, (folder, value) in SEGMENTED.items():
        path = dataset_dir / "ts_seg" / folder / place
        if path.is_file():
            found[lesion] = (str(path), value)
    return found


def read_label_map(source: Source, image: VolumeGrid) -> NDArray:
    """Integer label map (X, Y, Z) int16 on the grid and in the axis order of a CT.

    Args:
        source: file, nibabel image or MetaTensor; an array without an affine is taken to have the CT's axes.
        image: grid of the CT.

    Raises:
        ValueError: it lies on another grid, or holds values that are no whole numbers; names the file.
    """
    where = str(source) if isinstance(source, str | os.PathLike) else "segmentation"
    values, grid = stored_values(source, default_affine=image.affine, labels=True)
    problem = other_grid_problem(grid, image)
    if problem:
        raise ValueError(f"{where}: {problem}")
    labels = on_axes_of(values, grid.affine, image)
    whole = np.asarray(labels, dtype=np.int16)
    if labels.dtype.kind == "f" and not np.array_equal(whole, labels):
        raise ValueError(
            f"{where}: must hold whole numbers, got values such as {labels[whole != labels][0]:g}"
        )
    return whole


def lesion_bits(record: Mapping[Any, Any], image: VolumeGrid) -> NDArray[np.uint8]:
    """The masks of a record in one volume (X, Y, Z) uint8, bit k for LESIONS[k]; errors as in read_label_map.

    As a label map it is resampled and cached five times cheaper than five volumes.
    """
    bits = np.zeros(image.shape, dtype=np.uint8)
    maps: dict[str, NDArray] = {}
    for lesion, path in record["lesion_masks"].items():
        if path not in maps:
            maps[path] = read_label_map(path, image)
        value = record["mask_values"].get(lesion)
        inside = maps[path] != 0 if value is None else maps[path] == value
        bits |= inside.astype(np.uint8) << np.uint8(LESIONS.index(lesion))
    return bits


def unpack_lesions(bits: Tensor) -> Tensor:
    """Masks (5, D, H, W) uint8 of a bit volume (1, D, H, W) uint8 of `lesion_bits`."""
    shifts = torch.arange(len(LESIONS), dtype=torch.uint8).reshape(-1, 1, 1, 1)
    return (bits >> shifts) & 1
