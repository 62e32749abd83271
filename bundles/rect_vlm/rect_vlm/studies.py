"""What a user hands to the model, a path, an array, several, as studies on the model grid, and back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rect_vlm.geometry import Geometry
from rect_vlm.regions import REGIONS
from rect_vlm.transforms import eval_transform, invert
from rect_vlm.volume_input import Source

Volumes: TypeAlias = "Source | Sequence[Source]"

MODEL_SPACE = 5  # axes of a tensor (B, 1, D, H, W) that needs no preparation


@dataclass(frozen=True)
class Study:
    """One CT as the model sees it, and the way back to the voxels that came."""

    image: Tensor  # (1, 1, D, H, W) float32 in -1..1
    regions: Tensor | None  # (1, 1, D, H, W) ids 0..20
    spacing: tuple[float, float, float] | None  # mm per voxel of the model grid along D, H, W
    affine: Tensor | None = None  # of the model grid; None for a study that came in model space
    source_affine: Tensor | None = None
    source_shape: Tensor | None = None

    def to(self, device: torch.device) -> Study:
        """The same with image and regions on a device."""
        regions = None if self.regions is None else self.regions.to(device)
        return Study(
            self.image.to(device),
            regions,
            self.spacing,
            self.affine,
            self.source_affine,
            self.source_shape,
        )

    def on_input_grid(self, volume: Tensor) -> Tensor:
        """A map (D, H, W) of the model grid on the voxels of the volume that came, on the CPU."""
        if self.affine is None or self.source_affine is None or self.source_shape is None:
            return volume.cpu()
        found = invert(volume.unsqueeze(0), self.affine, self.source_affine, self.source_shape)
        return found.as_tensor()[0]


def is_batch(volumes: Any) -> bool:
    """Whether several volumes came: a list, or a tensor (B, 1, D, H, W) in model space."""
    return isinstance(volumes, list | tuple) or getattr(volumes, "ndim", 0) == MODEL_SPACE


def read_studies(
    volumes: Volumes,
    masks: Volumes | None,
    geometry: Geometry,
    affine: ArrayLike | Sequence[ArrayLike] | None = None,
    intensity: str = "hu",
) -> Iterator[Study]:
    """Prepare volumes one after the other.

    Args:
        volumes: a source of `read_volume`, a list of them, or a tensor (B, 1, D, H, W) in model space.
        masks: likewise, label maps of TotalSegmentator on the grids of the volumes; a list may hold None. In
            model space region ids 0..20 (B, 1, D, H, W).
        geometry: the model grid.
        affine: of an array (4, 4); of a list, one of each volume.
        intensity: see `read_volume`.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: lists of different length, a tensor that is not in model space, or a volume or mask that
            cannot be used; names what is required and what came.
    """
    if getattr(volumes, "ndim", 0) == MODEL_SPACE:
        yield from _in_model_space(torch.as_tensor(volumes), masks, geometry)
        return
    sources: list[Any] = list(volumes) if isinstance(volumes, list | tuple) else [volumes]
    transform = eval_transform(geometry, keep_meta=False)
    regions = _each(masks, len(sources), is_batch(volumes), "segmentation_mask")
    affines = _each(affine, len(sources), is_batch(volumes), "affine")
    for source, mask, matrix in zip(sources, regions, affines, strict=True):
        record = {"image": _located(source, matrix), "intensity": intensity, "regions": _labels(mask)}
        sample: Any = transform(record)
        d, h, w = affine_to_spacing(sample["affine"]).tolist()
        yield Study(
            sample["image"][None],
            sample["regions"][None] if mask is not None else None,
            (d, h, w),
            sample["affine"],
            sample["source_affine"],
            sample["source_shape"],
        )


def _each(given: Any, count: int, several: bool, name: str) -> list[Any]:
    if given is None or not several:
        return [given] * count
    if not isinstance(given, list | tuple) or len(given) != count:
        got = len(given) if isinstance(given, list | tuple) else type(given).__name__
        raise ValueError(f"{name} must be a list with one entry for each of {count} volumes, got {got}")
    return list(given)


def _located(source: Any, affine: ArrayLike | None) -> Any:
    """The source, an array with its affine."""
    if affine is None:
        return source
    if isinstance(source, str | os.PathLike | nib.spatialimages.SpatialImage):
        raise ValueError("affine belongs to an array; a file and a nibabel image have their own")
    matrix = torch.as_tensor(np.asarray(affine, dtype=np.float64))
    if matrix.shape != (4, 4):
        raise ValueError(f"affine must be (4, 4), got {tuple(matrix.shape)}")
    return MetaTensor(torch.as_tensor(source), affine=matrix)


def _labels(mask: Any) -> Any:
    """A label map; one of `get_fdata()` holds float64."""
    return np.asarray(mask.detach().cpu()) if type(mask) is Tensor else mask


def _in_model_space(image: Tensor, regions: Any, geometry: Geometry) -> Iterator[Study]:
    wanted = (1, *geometry.img_size)
    low, high = (float(image.min()), float(image.max())) if image.numel() else (0.0, 0.0)
    if tuple(image.shape[1:]) != wanted or low < -1 or high > 1:
        raise ValueError(
            f"a volume with 5 axes must be in model space, (B, {', '.join(map(str, wanted))}) with values of "
            f"-1..1, got {tuple(image.shape)} with {low:g}..{high:g}"
        )
    ids = None if regions is None else _region_ids(regions, image)
    for b in range(len(image)):
        yield Study(image[b : b + 1].float(), None if ids is None else ids[b : b + 1], geometry.spacing)


def _region_ids(regions: Tensor | NDArray, image: Tensor) -> Tensor:
    ids = torch.as_tensor(regions)
    if ids.shape != image.shape or not 0 <= float(ids.min()) <= float(ids.max()) <= len(REGIONS):
        raise ValueError(
            f"segmentation_mask of a volume in model space must hold region ids 0..{len(REGIONS)} of shape "
            f"{tuple(image.shape)}, got shape {tuple(ids.shape)}"
        )
    return ids.to(torch.uint8)
