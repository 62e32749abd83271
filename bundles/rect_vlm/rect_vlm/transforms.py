"""From a record to what the model takes: HU on the grid of a geometry, with regions and lesion masks.

Axes end as D, H, W = towards superior, posterior, left. Clipping, resampling and the padding with air follow
CT-CLIP (arXiv 2403.17834), which does not turn the axes. Nothing is mirrored: reports name sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    Orientationd,
    RandAffined,
    RandGaussianNoised,
    RandScaleIntensityd,
    Resized,
    ResizeWithPadOrCropd,
    Spacingd,
    SpatialResample,
    Transform,
)
from numpy.typing import ArrayLike
from torch import Tensor

from rect_vlm.case_steps import (
    KEYS,
    CaseCompose,
    DensityFromAird,
    FinishCased,
    LoadCased,
    PackCased,
    SmoothBeforeSpacingd,
)
from rect_vlm.geometry import Geometry

AXCODES = "SPL"
LABELS = (("L", "R"), ("P", "A"), ("I", "S"))
MODES = ("bilinear", "nearest", "nearest")
NOISE = 10.0  # HU, 0.01 of the model's range


def eval_transform(geometry: Geometry, keep_meta: bool = True) -> Compose:
    """Record to image (1, D, H, W) float32 in -1..1, regions (1, D, H, W) and masks (5, D, H, W) uint8.

    Beside them: regions_known, mask_known (5,) bool, and affine (4, 4), source_affine (4, 4) and
    source_shape (3,), by which `invert` brings a map back to the voxels of the file. A record needs no more
    than `image` (a source of `read_volume`); the keys of Record are used where they are there.

    Args:
        geometry: the model grid.
        keep_meta: keep the affine and the history of the image, for MONAI's Invertd and SaveImage.
    """
    return CaseCompose([*_deterministic(geometry, keep_meta), FinishCased(keep_meta)])


def train_transform(geometry: Geometry, augment: bool = True) -> Compose:
    """As `eval_transform`; everything before the first random step may be cached.

    Augmentation, each with probability 0.5: rotation by up to 5 degrees in the axial plane with up to 10 %
    of scaling and 5 % of shift, density up to 5 %, noise of 10 HU. What turns in at the border is air.
    """
    steps = _deterministic(geometry, keep_meta=False)
    return CaseCompose([*steps, *(_augmentation(geometry) if augment else []), FinishCased(keep_meta=False)])


def invert(
    volume: Tensor,
    affine: ArrayLike | Tensor,
    source_affine: ArrayLike | Tensor,
    source_shape: Sequence[int] | Tensor,
    mode: str = "bilinear",
) -> MetaTensor:
    """A map on the model grid, e.g. probabilities, on the voxels of the volume it came from.

    Args:
        volume: (K, D, H, W).
        affine: of the model grid, the `affine` of the sample.
        source_affine, source_shape: of the volume's own grid, likewise.
        mode: "bilinear", or "nearest" for label maps.

    Returns:
        (K, X, Y, Z) with `source_affine`, 0 outside of what the model saw.
    """
    plain = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
    here = MetaTensor(plain.detach().cpu().float(), affine=torch.as_tensor(affine, dtype=torch.float64))
    resample = SpatialResample(mode=mode, padding_mode="zeros", dtype=np.float32)
    target = torch.as_tensor(source_affine, dtype=torch.float64)
    return resample(here, target, [int(size) for size in source_shape])  # type: ignore[return-value]


def _deterministic(geometry: Geometry, keep_meta: bool) -> list[Transform]:
    present: dict[str, Any] = {"allow_missing_keys": True}
    steps: list[Transform] = [
        LoadCased(),
        DensityFromAird(),
        Orientationd(KEYS, AXCODES, labels=LABELS, **present),
        SmoothBeforeSpacingd(geometry),
    ]
    if geometry.spacing is None:
        steps.append(
            Resized(KEYS, geometry.img_size, mode=("trilinear", "nearest-exact", "nearest-exact"), **present)
        )
    else:
        steps.append(Spacingd(KEYS, geometry.spacing, mode=MODES, dtype=np.float32, **present))
        steps.append(ResizeWithPadOrCropd(KEYS, geometry.img_size, **present))
    return [*steps, PackCased(keep_meta)]


def _augmentation(geometry: Geometry) -> list[Transform]:
    shift = [0.05 * size for size in geometry.img_size]
    return [
        RandAffined(
            KEYS,
            geometry.img_size,
            prob=0.5,
            # About D only: in the planes of the other axes voxels are no squares, and turning would shear.
            rotate_range=(math.radians(5.0), 0.0, 0.0),
            scale_range=(0.1,) * 3,
            translate_range=shift,
            mode=MODES,
            padding_mode="zeros",
            allow_missing_keys=True,
        ),
        RandScaleIntensityd("image", factors=0.05, prob=0.5),
        RandGaussianNoised("image", prob=0.5, std=NOISE),
    ]
