"""A simulated patient on a voxel grid: where things are, and how structures are painted.

All places are mm (z, y, x) from the carina in an average adult, towards superior, posterior and left.
`Chest.standard` has these coordinates on the voxels of a patient of another size; `Chest.grid` has true mm.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rect_vlm.phantom_facts import LOBES, Lobe, Side
from rect_vlm.phantom_grid import Grid, Mask, Volume

AIR, FAT, WATER, MUSCLE, BONE = -1000.0, -95.0, 8.0, 42.0, 330.0  # HU
# Structures of TotalSegmentator's task "total", version 2.
SPLEEN, LIVER, STOMACH, ESOPHAGUS, TRACHEA, HEART, AORTA, PULMONARY_VEIN = 1, 5, 6, 15, 16, 51, 52, 53
VENA_CAVA, SCAPULA_LEFT, SCAPULA_RIGHT, SPINAL_CORD, STERNUM = 62, 71, 72, 79, 116
VERTEBRA_T12, RIB_LEFT_1, RIB_RIGHT_1 = 32, 92, 104
LOBE_ID: dict[Lobe, int] = dict(zip(LOBES, (12, 13, 14, 10, 11), strict=True))

SIGN: dict[Side, int] = {"right": -1, "left": 1}
HILUM = {side: np.array([-14.0, 14.0, 40.0 * sign]) for side, sign in SIGN.items()}
ARCH_BASE = 12.0  # z above which the aorta bends
ASCENDING, DESCENDING = np.array([-16.0, -14.0]), np.array([42.0, 23.0])  # (y, x)
# The heart's long axis points left, forward and down; the rows are orthonormal.
HEART_AXES = np.array([[-0.5, -0.4, 0.768], [-0.239, 0.917, 0.321], [-0.832, -0.023, -0.554]])
HEART_RADII = (60.0, 46.0, 50.0)


@dataclass(frozen=True)
class Heart:
    """The heart as an ellipsoid: center (3,) and radii (3,) in mm along HEART_AXES."""

    center: NDArray[np.float64]
    radii: NDArray[np.float64]

    def surface(self, directions: ArrayLike, height: float = 0.0) -> NDArray[np.float64]:
        """Points (P,3) `height` mm above the surface in the `directions` (P,3) along its axes."""
        unit = np.asarray(directions, dtype=float)
        unit = unit / np.linalg.norm(unit, axis=-1, keepdims=True)
        return self.center + (unit * (self.radii + height)) @ HEART_AXES

    def distance(self, grid: Grid) -> Volume:
        """Distance (D,H,W) in mm from the surface, negative inside."""
        z, y, x = (axis - np.float32(c) for axis, c in zip(grid.axes, self.center, strict=True))
        total = np.zeros(grid.shape, dtype=np.float32)
        for axis, radius in zip(HEART_AXES.astype(np.float32), self.radii.astype(np.float32), strict=True):
            total += np.square((z * axis[0] + y * axis[1] + x * axis[2]) / radius)
        return (np.sqrt(total) - 1) * np.float32(self.radii.mean())


@dataclass
class Chest:
    """A patient while it is being drawn.

    `hu` and `labels` (TotalSegmentator's ids) are (D,H,W); `wall` (D,H,W) is the relative distance from the
    axis of the chest cavity, 1 at its wall; `front` and `back` (D,1,W) are the y of that wall; `heart_mm`
    is the distance from the heart's surface, `side` the lung of each side, `masks` the lesions by name.
    """

    grid: Grid
    standard: Grid
    heart: Heart
    heart_mm: Volume
    wall: Volume
    front: Volume
    back: Volume
    hu: Volume = field(init=False)
    labels: NDArray[np.uint8] = field(init=False)
    side: dict[Side, Mask] = field(default_factory=dict)
    masks: dict[str, Mask] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.hu = np.full(self.grid.shape, AIR, dtype=np.float32)
        self.labels = np.zeros(self.grid.shape, dtype=np.uint8)

    @property
    def lungs(self) -> Mask:
        """Both lungs."""
        return self.side["right"] | self.side["left"]

    def lobe(self, lobe: Lobe) -> Mask:
        """Voxels of one lobe."""
        return self.labels == LOBE_ID[lobe]

    def take_from_lungs(self, where: Mask) -> None:
        """What something else fills is lung no more."""
        for side, lung in self.side.items():
            self.side[side] = lung & ~where

    def put(self, where: Mask, hu: float, label: int | None = None) -> None:
        """Fill voxels with a tissue and, if given, a structure id."""
        np.copyto(self.hu, np.float32(hu), where=where)
        if label is not None:
            np.copyto(self.labels, np.uint8(label), where=where)

    def mix(self, cover: Volume, hu: ArrayLike) -> None:
        """Replace what is there by `hu` as far as it is covered (0..1)."""
        self.hu += cover * (np.asarray(hu, np.float32) - self.hu)

    def raise_to(self, cover: Volume, hu: ArrayLike) -> None:
        """As `mix`, but where it is denser already nothing changes."""
        self.hu += cover * np.maximum(np.asarray(hu, np.float32) - self.hu, 0)
