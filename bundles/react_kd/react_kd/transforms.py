"""Preprocessing and augmentation: from the files of a case to the arrays that the networks take.

CT window (-160..240 HU) and PET percentiles (1, 99) are those of the code of REACT-KD (arXiv 2508.02104).
Arrays are (C, X, Y, Z) in RAS, Z = axial slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import (
    CastToTyped,
    Compose,
    EnsureTyped,
    LoadImaged,
    Orientationd,
    RandAffined,
    RandFlipd,
    Resized,
    ResizeWithPadOrCropd,
    ScaleIntensityRanged,
    Spacingd,
    Transform,
    allow_missing_keys_mode,
    convert_applied_interp_mode,
)
from torch import Tensor

from react_kd.cases import CLASSES, MASK_KEYS, PET_KEYS
from react_kd.low_dose import LowDoseLevelsd, NoiseModel, RandPickDosed
from react_kd.normalisation import LiverRatiod, MaskToLiverd, NormaliseInLiverd, ScalePETd
from react_kd.regions import RegionLabelsd
from react_kd.spatial import (
    ROIS,
    AntiAliasd,
    BinaryMasksd,
    CropToLiverd,
    MatchGridd,
    PrepareCased,
    StackPETd,
)

LABELS = (("L", "R"), ("P", "A"), ("I", "S"))
PET_SCALES = ("liver_ratio", "percentiles", "suv")
SCALARS = ("image", "pet", "dose")
LABEL_MAPS = (*MASK_KEYS, "regions")


def preprocessing(
    size: Sequence[int] = (48, 48, 16),
    roi: str = "liver_mask",
    margin_mm: float = 10.0,
    spacing: Sequence[float] | None = None,
    hu_window: Sequence[float] = (-160.0, 240.0),
    pet_scale: str = "liver_ratio",
    pet_percentiles: Sequence[float] = (1.0, 99.0),
    pet_suv: Sequence[float] = (0.0, 10.0),
    dose_levels: Sequence[float | None] | None = None,
    dose_model: NoiseModel = "beer_lambert",
    dose_seed: int = 0,
    regions: dict[str, Any] | None = None,
    reader: str = "NibabelReader",
    classes: Sequence[str] = CLASSES,
    keep_meta: bool = False,
) -> Compose:
    """Everything deterministic, from a case (paths) to a sample (arrays), for training and inference alike.

    Args:
        size: voxels X, Y, Z of the result.
        roi: "full", "liver_crop" (bounding box of the liver and `margin_mm`) or "liver_mask" (the same, zero
            outside liver and mass). Without a liver mask both take the box of the body.
        spacing: None resizes the region to `size`; (x, y, z) in mm resamples to these voxels and pads or
            crops about the middle instead, which keeps the physical scale.
        hu_window: CT range that becomes 0..1 before the z-score.
        pet_scale: "liver_ratio" (uptake over that of the healthy liver, minus 1), "percentiles" (inside the
            body, as
            in the authors' code; the upper one clips hot lesions, which fill less than 1 % of a body) or
            "suv".
        pet_percentiles: range that becomes 0..1 for "percentiles".
        pet_suv: range that becomes 0..1 for "suv".
        dose_levels: photons per ray of the key "dose" (None in the list = full dose); None makes no such key.
        dose_model: "beer_lambert" or "linear", see low_dose.py.
        dose_seed: seed of the photon noise.
        regions: settings of RegionLabelsd for the key "regions"; None takes its defaults.
        reader: MONAI reader for NIfTI files, "NibabelReader" or "ITKReader"; DICOM folders always use ITK.
        keep_meta: keep the affine and the operations of each image, which `to_original_space` needs.

    Raises:
        ValueError: for a roi or size out of range, and, when applied, for a label that is not a grade.
    """
    if roi not in ROIS:
        raise ValueError(f"roi must be one of {', '.join(ROIS)}, got {roi!r}")
    if len(size) != 3 or min(size) < 1:
        raise ValueError(f"size must be three positive numbers of voxels, got {tuple(size)}")
    if pet_scale not in PET_SCALES:
        raise ValueError(f"pet_scale must be one of {', '.join(PET_SCALES)}, got {pet_scale!r}")
    low, high = hu_window
    images, spatial = ("image", "dose"), ("image", "dose", *MASK_KEYS)
    chain: list[Transform] = [
        PrepareCased(classes),
        LoadImaged(("image", *PET_KEYS), reader, ensure_channel_first=True, allow_missing_keys=True),
        LoadImaged(MASK_KEYS, reader, dtype=np.uint8, ensure_channel_first=True, allow_missing_keys=True),
        Orientationd(("image", *MASK_KEYS), "RAS", labels=LABELS, allow_missing_keys=True),
        MatchGridd(MASK_KEYS, mode="nearest", allow_missing_keys=True),
        BinaryMasksd(),
    ]
    if pet_scale != "liver_ratio":
        suv = pet_suv if pet_scale == "suv" else None
        chain.append(ScalePETd(PET_KEYS, pet_percentiles, suv, allow_missing_keys=True))
    # Rays need the whole width of the body but only the slices that are kept.
    if roi != "full":
        chain.append(CropToLiverd(spatial, margin_mm, axes=(2,), allow_missing_keys=True))
    if dose_levels:
        chain.append(
            LowDoseLevelsd("image", output="dose", levels=dose_levels, model=dose_model, seed=dose_seed)
        )
    if roi != "full":
        chain.append(CropToLiverd(spatial, margin_mm, axes=(0, 1), allow_missing_keys=True))
    chain += [
        MatchGridd(PET_KEYS, mode="bilinear", allow_missing_keys=True),
        StackPETd(),
        ScaleIntensityRanged(images, low, high, 0.0, 1.0, clip=True, allow_missing_keys=True),
        *_to_size(size, spacing),
        CastToTyped(MASK_KEYS, torch.uint8),
        NormaliseInLiverd(images, hu_window, allow_missing_keys=True),
    ]
    if pet_scale == "liver_ratio":
        chain.append(LiverRatiod("pet"))
    if roi == "liver_mask":
        chain.append(MaskToLiverd(SCALARS, allow_missing_keys=True))
    chain.append(RegionLabelsd(**(regions or {})))
    if not keep_meta:
        chain.append(EnsureTyped((*SCALARS, *LABEL_MAPS), track_meta=False, allow_missing_keys=True))
    return Compose(chain)


def _to_size(size: Sequence[int], spacing: Sequence[float] | None) -> list[Transform]:
    keep: dict[str, Any] = {"allow_missing_keys": True}
    if spacing is None:
        return [
            AntiAliasd(SCALARS, size, **keep),
            Resized(SCALARS, size, mode="trilinear", **keep),
            Resized(MASK_KEYS, size, mode="nearest-exact", **keep),
        ]
    return [
        Spacingd(SCALARS, spacing, mode="bilinear", **keep),
        Spacingd(MASK_KEYS, spacing, mode="nearest", **keep),
        ResizeWithPadOrCropd((*SCALARS, *MASK_KEYS), size, **keep),
    ]


def augmentation(
    flip_probability: float = 0.5,
    affine_probability: float = 0.5,
    rotate_degrees: float = 10.0,
    scale: float = 0.1,
) -> Compose:
    """Random part of training: one dose level, flips along every axis, small in-plane rotation and scaling.

    Of the levels of "dose" (L, X, Y, Z) one stays (1, X, Y, Z), drawn uniformly; label maps stay label maps.
    """
    keys = (*SCALARS, *LABEL_MAPS)
    modes = ["bilinear"] * len(SCALARS) + ["nearest"] * len(LABEL_MAPS)
    chain: list[Transform] = [
        RandPickDosed("dose", allow_missing_keys=True),
        *(RandFlipd(keys, flip_probability, axis, allow_missing_keys=True) for axis in range(3)),
        RandAffined(
            keys,
            prob=affine_probability,
            rotate_range=(0.0, 0.0, np.deg2rad(rotate_degrees)),
            scale_range=(scale,) * 3,
            mode=modes,
            padding_mode="border",
            allow_missing_keys=True,
        ),
        EnsureTyped(SCALARS, track_meta=False, allow_missing_keys=True),
        EnsureTyped(LABEL_MAPS, dtype=torch.uint8, track_meta=False, allow_missing_keys=True),
    ]
    return Compose(chain)


def to_original_space(
    transform: Compose, image: MetaTensor, volume: Tensor, nearest: bool = False
) -> MetaTensor:
    """Bring a map (C, X, Y, Z) on the grid of a preprocessed CT back to the CT's own grid and affine.

    `transform` is the preprocessing (keep_meta=True) that made `image`, its key "image". Voxels outside the
    crop are zero. Raises ValueError when `image` does not carry its history or `volume` lies on another grid.
    """
    if not isinstance(image, MetaTensor) or not image.applied_operations:
        raise ValueError("image must carry its history: build the preprocessing with keep_meta=True")
    if volume.shape[-3:] != image.shape[-3:]:
        raise ValueError(
            f"volume must lie on the grid {tuple(image.shape[-3:])}, got {tuple(volume.shape[-3:])}"
        )
    operations = deepcopy(image.applied_operations)
    if nearest:
        # Invertd would take torch's "nearest", which is off by half a voxel when it resizes.
        operations = [
            convert_applied_interp_mode(step, "nearest-exact" if step["class"] == "Resize" else "nearest")
            for step in operations
        ]
    plain = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
    history = MetaTensor(plain.detach(), meta=deepcopy(image.meta), applied_operations=operations)
    with allow_missing_keys_mode(transform):
        return transform.inverse({"image": history})["image"]
