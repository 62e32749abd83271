"""The lesions of one CT on the voxels of its own file: label map, volumes, probabilities."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rect_vlm.findings import LESIONS
from rect_vlm.studies import Study
from rect_vlm.transforms import invert

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class LesionMaps:
    """labels (X, Y, Z) uint8: 0, or 1 + the index in LESIONS of the likeliest; volumes in ml by lesion.

    Lesions may overlap: each has its own volume, so that they may sum to more than the labels hold.
    probabilities: (X, Y, Z) float32 by lesion, where asked for.
    """

    labels: NDArray[np.uint8]
    volumes: dict[str, float]
    affine: NDArray[np.float64]
    probabilities: dict[str, NDArray[np.float32]] = field(default_factory=dict)


def lesion_maps(study: Study, masks: Tensor, threshold: float = 0.5, keep: bool = False) -> LesionMaps:
    """Carry probability masks (5, D, H, W) of the model grid to the voxels of the file.

    Args:
        study: that the masks belong to.
        masks: in the order of LESIONS.
        threshold: a voxel belongs to a lesion above it.
        keep: return the probabilities of all voxels too; otherwise only boxes around lesions are resampled.

    Raises:
        ValueError: the study came in model space and has no voxels of its own.
    """
    _, affine, shape = own_grid(study)
    labels = np.zeros(shape, dtype=np.uint8)
    best = np.full(shape, threshold, dtype=np.float32)
    millilitres = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    volumes, kept = dict.fromkeys(LESIONS, 0.0), {}
    for label, (lesion, mask) in enumerate(zip(LESIONS, masks.float().cpu(), strict=True), start=1):
        if keep:
            kept[lesion] = study.on_input_grid(mask).numpy()
        box = lesion_box(study, mask > threshold)
        if box is None:
            continue
        found = kept[lesion][box] if keep else map_in_box(study, mask, box)
        volumes[lesion] = float((found > threshold).sum()) * millilitres
        wins = found > best[box]
        labels[box][wins], best[box][wins] = label, found[wins]
    return LesionMaps(labels, volumes, affine, kept)


def lesion_box(study: Study, inside: Tensor) -> Box | None:
    """Box of the file's voxels outside of which a map interpolated from `inside` (D, H, W) is empty."""
    model_grid, own, shape = own_grid(study)
    places = inside.nonzero().numpy()
    if not len(places):
        return None
    ends = np.stack([places.min(axis=0) - 1, places.max(axis=0) + 1])  # where the neighbours' weight is zero
    corners = np.array(list(product(*ends.T)), dtype=np.float64)
    moved = nib.affines.apply_affine(np.linalg.solve(own, model_grid), corners)
    start = np.clip(np.floor(moved.min(axis=0)).astype(int), 0, shape)
    stop = np.clip(np.ceil(moved.max(axis=0)).astype(int) + 1, 0, shape)
    if (stop <= start).any():  # in the air around the scan
        return None
    x, y, z = (slice(int(low), int(high)) for low, high in zip(start, stop, strict=True))
    return x, y, z


def map_in_box(study: Study, mask: Tensor, box: Box) -> NDArray[np.float32]:
    """A map (D, H, W) of the model grid on the voxels of a box of the file."""
    model_grid, own, _ = own_grid(study)
    here = own @ nib.affines.from_matvec(np.eye(3), [side.start for side in box])
    shape = [side.stop - side.start for side in box]
    return invert(mask.unsqueeze(0), model_grid, here, shape).as_tensor()[0].numpy()


def own_grid(study: Study) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[int, ...]]:
    """Affine of the model grid; affine and shape (X, Y, Z) of the file."""
    if study.affine is None or study.source_affine is None or study.source_shape is None:
        raise ValueError("the study must come from a volume with an affine, got one in model space")
    own = np.asarray(study.source_affine, dtype=np.float64)
    return np.asarray(study.affine, dtype=np.float64), own, tuple(int(size) for size in study.source_shape)
