"""Back from what a network sees to the CT it came from: maps in the file's own voxels, and their picture."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged, Orientation
from numpy.typing import NDArray
from torch import Tensor

from react_kd.cases import MASK_KEYS
from react_kd.spatial import BinaryMasksd, MatchGridd
from react_kd.transforms import LABELS, to_original_space

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class CTSpace:
    """The CT of a case in HU and its masks, on the grid and in the axis order of the CT's file.

    Args:
        case: paths by key; `liver` and `mass` may be missing.
        transform: the preprocessing (keep_meta=True) that the network's input came through.
        image: its output for the key `image`.
    """

    def __init__(self, case: Mapping[str, Any], transform: Compose, image: MetaTensor) -> None:
        loaded = _loader()({key: case[key] for key in ("image", *MASK_KEYS) if case.get(key)})
        self.transform, self.image = transform, image
        self.ct: MetaTensor = loaded["image"]
        empty = torch.zeros_like(self.ct, dtype=torch.uint8)
        self.mass: MetaTensor = loaded.get("mass", empty)
        self.inside: MetaTensor = loaded.get("liver", empty) | self.mass

    @property
    def affine(self) -> NDArray[np.float64]:
        """Voxel to world (4, 4), RAS, mm."""
        return np.asarray(self.ct.affine, dtype=np.float64)

    def carry(self, volume: Tensor, masked: bool, rescale: bool = True) -> MetaTensor:
        """A map (1, X, Y, Z) of the network's grid on the grid of the CT's file (1, X', Y', Z'), float32.

        `masked` sets it to zero outside liver and mass, `rescale` makes its maximum 1 again.
        """
        there = to_original_space(self.transform, self.image, volume.float().cpu()).clamp_min(0)
        if masked:
            there = there * (self.inside > 0)
        peak = float(there.max())
        return cast(MetaTensor, there / peak if rescale and peak > 0 else there)

    def overlay(self, volume: MetaTensor, **text: str) -> Figure:
        """Picture of a carried map over the CT with the outline of the mass; `text` as in cam_overlay."""
        from react_kd.figures import cam_overlay

        turn = Orientation("RAS", labels=LABELS)
        ct, cam, mass = (cast(MetaTensor, turn(item)) for item in (self.ct, volume, self.mass))
        spacing = [float(size) for size in ct.pixdim]
        return cam_overlay(ct[0].numpy(), cam[0].numpy(), mass[0].numpy(), spacing=spacing, **text)  # type: ignore[arg-type]


@lru_cache(maxsize=1)  # LoadImaged sets up every reader there is
def _loader() -> Compose:
    keep: dict[str, Any] = {"allow_missing_keys": True}
    return Compose(
        [
            LoadImaged("image", "NibabelReader", ensure_channel_first=True),
            LoadImaged(MASK_KEYS, "NibabelReader", dtype=np.uint8, ensure_channel_first=True, **keep),
            MatchGridd(MASK_KEYS, mode="nearest", **keep),
            BinaryMasksd(),
        ]
    )
