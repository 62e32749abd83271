"""Regions of the liver graph: parenchyma and tumours as one label map, pooled to any feature grid.

The label map travels through the data pipeline like any mask (a flip moves labels with their voxels).  Labels
are fixed slots: 0 background, 1 ... ``liver_parts`` parenchyma, then up to ``MAX_TUMOURS`` tumours by falling
volume.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type, convert_to_tensor
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from torch import Tensor

LIVER_PARTS = 4
MAX_TUMOURS = 8
MIN_VOXELS = 4


def region_count(liver_parts: int = LIVER_PARTS) -> int:
    """K, the number of region slots."""
    return liver_parts + MAX_TUMOURS


def region_labels(
    liver: ArrayLike, mass: ArrayLike, *, min_voxels: int = MIN_VOXELS, liver_parts: int = LIVER_PARTS
) -> NDArray[np.uint8]:
    """Label map (X, Y, Z) of the regions of one scan.

    Args:
        liver: (X, Y, Z) mask, non-zero inside; whether it includes the tumours does not matter.
        mass: (X, Y, Z) mask of all tumours; its 26-connected components are the tumours.
        min_voxels: a smaller component is no region (and no parenchyma either).
        liver_parts: 1, 2 (halves along X) or 4 (quadrants in X, Y) about the centroid of the parenchyma.

    Raises:
        ValueError: for masks that are not two equal volumes, or another number of parts.
    """
    liver, mass = np.asarray(liver) > 0, np.asarray(mass) > 0
    if liver.ndim != 3 or liver.shape != mass.shape:
        raise ValueError(f"liver and mass must be (X, Y, Z) on one grid, got {liver.shape} and {mass.shape}")
    if liver_parts not in (1, 2, 4):
        raise ValueError(f"liver_parts must be 1, 2 or 4, got liver_parts={liver_parts}")
    labels = np.zeros(liver.shape, dtype=np.uint8)
    voxels = np.nonzero(liver & ~mass)
    if voxels[0].size:
        far_x, far_y = (axis > axis.mean() for axis in voxels[:2])
        part = {1: np.zeros_like(far_x, dtype=np.uint8), 2: far_x, 4: 2 * far_x + far_y}[liver_parts]
        labels[voxels] = 1 + part
    components, count = ndimage.label(mass, structure=np.ones((3, 3, 3)))
    volumes = np.bincount(components.ravel(), minlength=count + 1)[1:]
    order = np.argsort(-volumes, kind="stable")
    kept = order[volumes[order] >= min_voxels][:MAX_TUMOURS]
    slot = np.zeros(count + 1, dtype=np.uint8)
    slot[1 + kept] = liver_parts + 1 + np.arange(len(kept))
    labels[mass] = slot[components[mass]]
    return labels


def occupancy(labels: Tensor, grid: Sequence[int], n_regions: int) -> Tensor:
    """Share (B, K, *grid) of every grid cell that each region fills, for labels (B, 1, X, Y, Z) in 0 ... K.

    It is the adaptive average pool of the one-hot labels, so a region of one voxel keeps a positive share on
    any grid.  Where the grid divides the volume the voxels are counted, and no one-hot volume is made.

    Raises:
        ValueError: for labels of another shape, or outside 0 ... K.
    """
    labels = convert_to_tensor(labels, track_meta=False)
    if labels.ndim != 5 or labels.shape[1] != 1:
        raise ValueError(f"labels must be (B, 1, X, Y, Z), got {tuple(labels.shape)}")
    low, high = int(labels.amin()), int(labels.amax())
    if low < 0 or high > n_regions:
        raise ValueError(f"labels must lie in 0 ... {n_regions}, got {low} ... {high}")
    size, cells = labels.shape[2:], (grid[0], grid[1], grid[2])
    if any(s % c for s, c in zip(size, cells, strict=True)):
        shares = [F.adaptive_avg_pool3d((labels == k).float(), cells) for k in range(1, n_regions + 1)]
        return torch.cat(shares, dim=1)
    window = [s // c for s, c in zip(size, cells, strict=True)]
    batch, _, x, y, z = torch.nonzero(labels, as_tuple=True)
    region = labels[batch, 0, x, y, z].long() - 1
    flat = batch * n_regions + region
    for axis, step, count in zip((x, y, z), window, cells, strict=True):
        flat = flat * count + axis // step
    shape = (labels.shape[0], n_regions, *cells)
    counts = torch.bincount(flat, minlength=int(np.prod(shape)))
    return counts.view(shape).float() / int(np.prod(window))


def region_table(
    labels: ArrayLike, affine: ArrayLike, liver_parts: int = LIVER_PARTS
) -> list[dict[str, Any]]:
    """One row per region that exists: slot, type, component, centroid in mm (world) and volume in mm^3.

    Args:
        labels: (X, Y, Z) label map.
        affine: (4, 4) voxel to world, mm.
        liver_parts: the parts the labels were made with; higher slots are tumours, numbered from 1.
    """
    labels, affine = np.asarray(labels).astype(int), np.asarray(affine, dtype=float)
    volumes = np.bincount(labels.ravel()) * abs(np.linalg.det(affine[:3, :3]))
    rows = []
    for slot in np.flatnonzero(volumes[1:]) + 1:
        centre = [axis.mean() for axis in np.nonzero(labels == slot)]
        tumour = slot > liver_parts
        rows.append(
            {
                "region": int(slot),
                "type": "tumour" if tumour else "liver",
                "component": int(slot - liver_parts if tumour else slot),
                "centroid_mm": [float(v) for v in (affine @ [*centre, 1.0])[:3]],
                "volume_mm3": float(volumes[slot]),
            }
        )
    return rows


class RegionLabelsd(MapTransform):
    """Add the label map (1, X, Y, Z) uint8 made of a sample's liver and mass masks (1, X, Y, Z).

    Raises:
        KeyError: when a mask is missing from the sample.
    """

    def __init__(
        self,
        liver_key: str = "liver",
        mass_key: str = "mass",
        output_key: str = "regions",
        min_voxels: int = MIN_VOXELS,
        liver_parts: int = LIVER_PARTS,
    ) -> None:
        super().__init__((liver_key, mass_key))
        self.output_key = output_key
        self.min_voxels = min_voxels
        self.liver_parts = liver_parts

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        liver, mass = (sample[key] for key in self.key_iterator(sample))
        labels = region_labels(liver[0], mass[0], min_voxels=self.min_voxels, liver_parts=self.liver_parts)
        sample[self.output_key] = convert_to_dst_type(labels[None], dst=liver, dtype=np.uint8)[0]
        return sample
