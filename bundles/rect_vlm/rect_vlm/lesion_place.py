"""Where in the chest a lesion lies: lobe, or side and third; front or back. D, H, W = up, back, left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

# In the order in which places are told; the first five are the region ids 1 to 5.
LOBES = (
    "right upper lobe",
    "right middle lobe",
    "right lower lobe",
    "left upper lobe",
    "left lower lobe",
)
ZONES = tuple(f"{side} {level} zone" for side in ("right", "left") for level in ("upper", "middle", "lower"))
SHARE = 0.2  # of a lesion; less of it in a place is not told
BODY = -0.5  # HU / 1000: denser than lung and air
POINTS = 5_000  # voxels by which a lesion is placed
LATTICE_MM = 5.0
THIN = 0.01  # of the points of a chest, at either end of an axis


@dataclass(frozen=True)
class Chest:
    """What places are told by, measured on voxels about LATTICE_MM apart.

    Args:
        regions: ids (D, H, W), 1 to 5 as in LOBES; None where no lobe is known.
        points: (n, 3) indices of some voxels of the lungs or, without lobes, of the body.
        spacing: mm per voxel.
    """

    regions: NDArray[Any] | None
    points: NDArray[np.intp]
    spacing: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        regions: NDArray[Any] | None,
        image: NDArray[Any] | None,
        shape: Sequence[int],
        spacing: Sequence[float],
    ) -> Chest:
        """Measure a chest by its lobes (D, H, W), else by its image (HU / 1000), else by the volume."""
        mm = np.asarray(spacing, dtype=np.float64)
        steps = np.maximum(1, np.round(LATTICE_MM / mm)).astype(np.intp)
        every = tuple(slice(None, None, step) for step in steps)
        if regions is not None:
            lobes = np.argwhere(_is_lobe(regions[every]))
            if len(lobes):
                return cls(regions, lobes * steps, mm)
        whole = np.ones(shape, dtype=bool)[every]
        body = whole if image is None else image[every] > BODY
        return cls(None, np.argwhere(body if body.any() else whole) * steps, mm)

    @cached_property
    def _tree(self) -> Any:
        from scipy.spatial import KDTree

        return KDTree(self.points * self.spacing)

    @cached_property
    def _ends(self) -> NDArray[np.float64]:
        """(2, 3): where the points begin and end along D, H, W, but for a thin rest such as a table."""
        return np.quantile(self.points, (THIN, 1 - THIN), axis=0)

    @cached_property
    def _midline(self) -> float:
        return float(np.median(self.points[:, 2]))

    def places(self, voxels: NDArray[np.intp]) -> dict[str, str]:
        """Where a connected lesion lies: its places, and for each "anterior", "posterior" or "".

        What lies beside the lungs belongs to the nearest lobe.

        Args:
            voxels: (n, 3) indices D, H, W of all of it, in any order.
        """
        voxels = voxels[:: max(1, len(voxels) // POINTS)]
        if self.regions is None:
            names, ids = ZONES, self._zone_ids(voxels)
        else:
            names, ids = LOBES, self._lobe_ids(voxels, self.regions)
        counts = np.bincount(ids, minlength=len(names))
        told = counts >= min(SHARE * len(voxels), counts.max())
        return {names[i]: self._front_or_back(voxels[ids == i]) for i in np.flatnonzero(told)}

    def _lobe_ids(self, voxels: NDArray[np.intp], regions: NDArray[Any]) -> NDArray[np.intp]:
        ids = regions[tuple(voxels.T)].astype(np.intp)
        outside = ~_is_lobe(ids)
        if outside.any():
            nearest = self.points[self._tree.query(voxels[outside] * self.spacing)[1]]
            ids[outside] = regions[tuple(nearest.T)]
        return ids - 1

    def _zone_ids(self, voxels: NDArray[np.intp]) -> NDArray[np.intp]:
        left = voxels[:, 2] > self._midline
        level = 2 - np.clip(np.floor(3 * self._rank(voxels, 0)), 0, 2).astype(np.intp)
        return 3 * left + level

    def _front_or_back(self, voxels: NDArray[np.intp]) -> str:
        depth = self._rank(voxels, 1).mean()
        return "anterior" if depth < 1 / 3 else "posterior" if depth > 2 / 3 else ""

    def _rank(self, voxels: NDArray[np.intp], axis: int) -> NDArray[np.float64]:
        """0 where the chest begins along an axis, 1 where it ends."""
        begin, end = self._ends[:, axis]
        return (voxels[:, axis] - begin) / max(end - begin, 1)


def _is_lobe(regions: NDArray[Any]) -> NDArray[np.bool_]:
    return (regions >= 1) & (regions <= len(LOBES))
