"""Simulated chests on the grid of the CPU preset, and hand-made measures of the 18 findings on it.

The measures know the anatomy (structure ids) and nothing of the facts: what they reach is a floor of what
can be seen, between chance and one who is told the facts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rect_vlm.geometry import GEOMETRIES
from rect_vlm.phantom_chest import AORTA, HEART, LOBE_ID, TRACHEA
from rect_vlm.phantom_volume import Scan
from scipy import ndimage

CPU = GEOMETRIES["cpu"]
Box = tuple[slice, slice, slice]
PLANE = np.ones((1, 3, 3), dtype=bool)
NOT_UPPER = [LOBE_ID[lobe] for lobe in ("right middle", "right lower", "left lower")]


def on_cpu_grid(scan: Scan, volume: NDArray, order: int) -> NDArray:
    """HU (order 1) or structures (order 0) of a scan, resampled about its middle by grid points."""
    assert CPU.spacing is not None
    own = np.array([scan.affine[2, 0], -scan.affine[1, 1], -scan.affine[0, 2]])
    out = volume
    for axis, (count, step) in enumerate(zip(CPU.img_size, np.array(CPU.spacing) / own, strict=True)):
        at = (volume.shape[axis] - 1) / 2 + step * (np.arange(count) - (count - 1) / 2)
        low = np.clip(np.floor(at) if order else np.rint(at), 0, volume.shape[axis] - 2).astype(int)
        below, above = (np.take(out, low + k, axis=axis) for k in (0, 1))
        share = np.clip(at - low, 0, 1).reshape([-1 if k == axis else 1 for k in range(3)]) * order
        outside = (at < 0) | (at > volume.shape[axis] - 1)
        out = below + share.astype(np.float32) * (above.astype(np.float32) - below) if order else below
        out[(slice(None),) * axis + (outside,)] = -1000 * order
    return np.clip(out, -1000, 1000)


class View:
    """A chest as the measures look at it; all volumes (D,H,W)."""

    def __init__(self, hu: NDArray[np.float32], structures: NDArray[np.uint8]) -> None:
        self.hu, self.structures = hu, structures
        self.lungs = (structures >= 10) & (structures <= 14)
        self.inner = ndimage.binary_erosion(self.lungs, PLANE)
        self.soft = (hu > -150) & (hu < 200)
        self.mean = ndimage.uniform_filter(hu, (1, 3, 3))
        self.other = structures == 0
        levels = np.flatnonzero(self.lungs.any((1, 2)))
        self.apex, self.base, self.low = levels[-1], levels[0], (levels[0] + levels[-1]) // 2
        airway = np.argwhere(structures == TRACHEA)
        self.carina = airway[airway[:, 0] == airway[:, 0].min()].mean(axis=0)

    def near(self, structure: int, voxels: int) -> NDArray[np.bool_]:
        """What lies within so many voxels of a structure in its slices, other structures left out."""
        wide = ndimage.binary_dilation(self.structures == structure, PLANE, iterations=voxels)
        return wide & np.isin(self.structures, (0, structure))

    def around_carina(self, up: int, back: int, left: int) -> Box:
        """A box of the voxels up to so many from the lower end of the trachea."""
        reach = zip(self.carina.astype(int), (up, back, left), strict=True)
        z, y, x = (slice(max(0, c - r), c + r + 1) for c, r in reach)
        return z, y, x


def _fluid_behind(view: View) -> float:
    """What is as dense as water up to 32 mm behind the lungs; muscle is denser."""
    behind = np.zeros_like(view.lungs)
    for step in range(1, 9):
        behind[:, step:] |= view.lungs[:, :-step]
    return float((behind & view.other & (view.mean > -25) & (view.mean < 25)).sum())


def _gas_in_the_middle(view: View) -> float:
    """Air that is neither lung nor airway, behind the heart and above the lowest lung."""
    _, back, column = view.carina.astype(int)
    box = np.s_[view.base : view.low, back : back + 12, column - 6 : column + 9]
    return float(((view.hu < -500) & ~view.lungs & (view.structures != TRACHEA))[box].sum())


def _soft_in_the_middle(view: View) -> float:
    """Soft tissue around the carina that is no known structure."""
    box = view.around_carina(5, 14, 18)
    return float(((view.mean > -30) & view.other)[box].sum())


def _roundness(view: View) -> float:
    """The most that any place of the lungs stands out from its surroundings as a ball does."""
    dense = np.where(view.inner, np.clip(view.hu + 850, 0, 900), 0)
    small, wide = (ndimage.gaussian_filter(dense, sigma) for sigma in ((0.6, 1.3, 1.3), (1.6, 3.5, 3.5)))
    return float((small - wide)[view.inner].max())


def _spread(view: View) -> float:
    """How far the darker and the brighter lung are apart."""
    dark, bright = np.percentile(view.mean[view.inner], (15, 80))
    return float(bright - dark)


def _holes(view: View) -> float:
    """Air close to a wall, inside of the lungs."""
    wall = ndimage.maximum_filter(view.hu, (1, 3, 3)) - view.hu
    return float(((wall > 330) & (view.hu < -780) & view.inner).sum())


def _dense(view: View, where: NDArray[np.bool_], width: int) -> float:
    """Airless lung that is at least so many voxels wide in its slice."""
    return float(ndimage.binary_opening(view.soft & where, np.ones((1, width, width))).sum())


def _share(view: View, low: float, high: float, where: NDArray[np.bool_]) -> float:
    return float(((view.hu > low) & (view.hu < high))[where].mean())


def _cuffs(view: View) -> float:
    box = view.around_carina(6, 12, 24)
    inside = view.inner[box]
    return float(((view.hu[box] > -650) & (view.hu[box] < 0))[inside].mean())


MEASURES: dict[str, Callable[[View], float]] = {
    "Medical material": lambda v: float((v.hu > 950).sum()),
    "Arterial wall calcification": lambda v: float((v.hu > 260)[v.near(AORTA, 1)].sum()),
    "Cardiomegaly": lambda v: float((v.structures == HEART).sum()),
    "Pericardial effusion": lambda v: float((v.soft & v.near(HEART, 5) & v.other).sum()),
    "Coronary artery wall calcification": lambda v: float((v.hu > 280)[v.near(HEART, 1)].sum()),
    "Hiatal hernia": _gas_in_the_middle,
    "Lymphadenopathy": _soft_in_the_middle,
    "Emphysema": lambda v: float((v.mean < -905)[v.inner].mean()),
    "Atelectasis": lambda v: _dense(v, v.inner & np.isin(v.structures, NOT_UPPER), 3),
    "Lung nodule": _roundness,
    "Lung opacity": lambda v: float(((v.mean > -720) & (v.mean < -450))[v.inner].mean()),
    "Pulmonary fibrotic sequela": lambda v: float((v.hu > -500)[v.apex - 3 :][v.lungs[v.apex - 3 :]].mean()),
    "Pleural effusion": _fluid_behind,
    "Mosaic attenuation pattern": _spread,
    "Peribronchial thickening": _cuffs,
    "Consolidation": lambda v: _dense(v, v.lungs, 5),
    "Bronchiectasis": _holes,
    "Interlobular septal thickening": lambda v: _share(
        v, -760, -450, v.inner & np.isin(v.structures, NOT_UPPER)
    ),
}
