"""Dictionary transforms that decide which voxels a sample holds: case keys, grids, crop."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Crop, InvertibleTransform, MapTransform, ResampleToMatch, Transform
from monai.utils import convert_to_dst_type
from scipy import ndimage

from react_kd.cases import CASE_KEYS, CLASSES, MASK_KEYS, PET_KEYS, describe, grade_of, stem
from react_kd.grids import same_grid

logger = logging.getLogger(__name__)

ROIS = ("full", "liver_crop", "liver_mask")
BODY_HU = -500.0
Data = Mapping[Hashable, Any]


class PrepareCased(Transform):
    """Turn a case into the start of a sample: ids, label int64 (-1 = ungraded), pet_available (2,) bool.

    Keys without a value and the clinical columns are dropped; missing ids are taken from the name of the CT.
    """

    def __init__(self, classes: Sequence[str] = CLASSES) -> None:
        self.classes = tuple(classes)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        sample = {key: value for key, value in data.items() if value is not None and key != "clinical"}
        if "image" not in sample:
            raise ValueError(
                f"{describe(data)}, key image: required, missing; got {sorted(map(str, sample))}"
            )
        named = isinstance(sample["image"], str | os.PathLike)
        sample.setdefault("scan_id", stem(sample["image"]) if named else "scan")
        sample.setdefault("patient_id", sample["scan_id"])
        sample["label"] = torch.tensor(grade_of(sample, self.classes), dtype=torch.int64)
        sample["pet_available"] = torch.tensor([key in sample for key in PET_KEYS])  # type: ignore[assignment]
        return sample


class MatchGridd(MapTransform):
    """Resample images to the grid of the CT by physical coordinates (zero outside), unless they lie on it."""

    def __init__(self, keys: KeysCollection, mode: str, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.resample = ResampleToMatch(mode=mode, padding_mode="zeros", dtype=np.float32)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        sample = dict(data)
        image = sample["image"]
        for key in self.key_iterator(sample):
            volume = sample[key]
            same_axes = torch.allclose(volume.affine[:3, :3], image.affine[:3, :3], atol=1e-2)
            if same_axes and same_grid(volume.shape[1:], volume.affine, image.shape[1:], image.affine):
                continue
            sample[key] = self.resample(volume, image).to(volume.dtype)
        return sample


class BinaryMasksd(Transform):
    """Make liver and mass {0, 1} uint8; the liver includes its tumours. Missing masks stay missing."""

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        sample = dict(data)
        for key in MASK_KEYS:
            if key in sample:
                sample[key] = (sample[key] > 0).to(torch.uint8)
        if all(key in sample for key in MASK_KEYS):
            sample["liver"] = sample["liver"] | sample["mass"]
        return sample


class CropToLiverd(MapTransform, InvertibleTransform):
    """Crop to the bounding box of the liver and a margin in mm along the given axes (invertible).

    Without a liver it takes the box of the body, voxels above -500 HU, and says so in the log. The CT must
    still be in HU.
    """

    def __init__(
        self,
        keys: KeysCollection,
        margin_mm: float = 10.0,
        axes: Sequence[int] = (0, 1, 2),
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.margin_mm = margin_mm
        self.axes = tuple(axes)
        self.crop = Crop()

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        sample = dict(data)
        slices = self._box(sample)
        for key in self.key_iterator(sample):
            sample[key] = self.crop(sample[key], slices)
        return sample

    def inverse(self, data: Data) -> dict[Hashable, Any]:
        """Pad back to the size before the crop."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            sample[key] = self.crop.inverse(sample[key])
        return sample

    def _box(self, sample: dict[Hashable, Any]) -> tuple[slice, ...]:
        image: MetaTensor = sample["image"]
        liver = sample.get("liver")
        if liver is not None and liver.any():
            inside = liver[0].as_tensor() > 0
        else:
            logger.warning("%s has no liver mask: cropped to the body instead", describe_sample(sample))
            inside = image.as_tensor()[0] > BODY_HU
        slices = [slice(None)] * 3
        for axis in self.axes:
            others = [other for other in range(3) if other != axis]
            places = inside.any(dim=others[1]).any(dim=others[0]).nonzero().flatten().tolist()
            if places:
                margin = math.ceil(self.margin_mm / float(image.pixdim[axis]))
                slices[axis] = slice(max(places[0] - margin, 0), places[-1] + 1 + margin)
        return tuple(slices)


class AntiAliasd(MapTransform):
    """Smooth images before a resize to `size`: Gaussian of (f - 1) / 2 voxels where an axis shrinks by f.

    The width is that of Resized(anti_aliasing=True), whose filter pads with zeros and darkens the border.
    """

    def __init__(self, keys: KeysCollection, size: Sequence[int], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.size = tuple(size)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        sample = dict(data)
        for key in self.key_iterator(sample):
            volume = sample[key]
            factors = [old / new for old, new in zip(volume.shape[1:], self.size, strict=True)]
            sigma = (0.0, *(max(f - 1, 0.0) / 2 for f in factors))
            smooth = ndimage.gaussian_filter(np.asarray(volume), sigma, mode="nearest")
            sample[key] = convert_to_dst_type(smooth, volume)[0]
        return sample


class StackPETd(Transform):
    """Stack the tracers into "pet" (2, X, Y, Z) [FDG, ACT]; missing tracers and masks become zeros."""

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        sample = dict(data)
        empty = torch.zeros_like(sample["image"])
        pet: MetaTensor = torch.cat([sample.pop(key, empty) for key in PET_KEYS])  # type: ignore[assignment]
        # It is no single file; with a NIfTI name Spacingd would take pet_available for the metadata of pet.
        pet.meta.pop("filename_or_obj", None)
        sample["pet"] = pet
        for key in MASK_KEYS:
            sample.setdefault(key, empty.to(torch.uint8))
        return sample


def describe_sample(sample: Data) -> str:
    """Name a sample for the log."""
    return describe({key: sample[key] for key in CASE_KEYS[:2] if key in sample})
