"""The 20 anatomical regions of a chest: which structures they hold, and which patches lie in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from medbundles.distillation import full_precision
from monai.utils import convert_data_type, convert_to_dst_type, convert_to_tensor
from numpy.typing import NDArray
from torch import Tensor

from rect_vlm.patches import into_patches

Labels = TypeVar("Labels", NDArray, Tensor)

# Classes of TotalSegmentator v2, task `total` (Wasserthal et al., arXiv 2208.05868).
_STRUCTURES: dict[str, tuple[int, ...]] = {
    "lung_upper_lobe_right": (12,),
    "lung_middle_lobe_right": (13,),
    "lung_lower_lobe_right": (14,),
    "lung_upper_lobe_left": (10,),
    "lung_lower_lobe_left": (11,),
    "trachea": (16,),
    "heart": (51, 61),  # with the left atrial appendage
    "aorta": (52,),
    "pulmonary_vein": (53,),
    "mediastinal_vessels": (62, *range(54, 61)),  # superior vena cava; branches of the arch and their veins
    "esophagus": (15,),
    "thyroid": (17,),
    "spine": (*range(26, 51), 79),  # with the spinal cord
    # Tables that list carpal bones count them as 117 and costal cartilages as 118.
    "ribs": (*range(92, 116), 117, 118),
    "sternum_and_shoulders": (116, 73, 74, 71, 72, 69, 70),
    "liver": (5, 4),  # with the gallbladder
    "spleen": (1,),
    "stomach_and_bowel": (6, 18, 19, 20),
    "kidneys_and_adrenals": (2, 3, 8, 9, 23, 24),
    "other_abdomen": (63, 64, 7, 86, 87),  # lower vena cava, portal vein, pancreas, back muscles
}
REGIONS: tuple[str, ...] = tuple(_STRUCTURES)  # id 1 ... 20 in this order; 0 is everything else
LAST_STRUCTURE = 118
GEOMETRY = 8  # numbers that describe the place of a region


def from_totalsegmentator(labels: Labels) -> Labels:
    """Region ids 0 ... 20 (uint8) of a label map of TotalSegmentator, of any shape; its kind is kept.

    Raises:
        ValueError: a value that is no class of the task `total`.
    """
    found = convert_data_type(labels, np.ndarray)[0]
    low, high = (found.min(), found.max()) if found.size else (0, 0)
    whole = not np.issubdtype(found.dtype, np.floating) or not (found % 1).any()
    if not (0 <= low <= high <= LAST_STRUCTURE and whole):
        raise ValueError(
            f"labels must be classes 0 ... {LAST_STRUCTURE} of TotalSegmentator's task `total`, "
            f"got values {low:g} ... {high:g} of type {found.dtype}"
        )
    region_of = np.zeros(LAST_STRUCTURE + 1, dtype=np.uint8)
    for region, structures in enumerate(_STRUCTURES.values(), start=1):
        region_of[list(structures)] = region
    return convert_to_dst_type(region_of[found.astype(np.uint8)], dst=labels, dtype=np.uint8)[0]


def patch_to_region(
    regions: Tensor | None,
    patch: Sequence[int],
    num_regions: int,
    batch: int,
    grid: Sequence[int],
    device: torch.device | None = None,
) -> Tensor:
    """Share A (B, N, R + 1) of every patch that each region fills; column 0 is the background.

    Args:
        regions: ids 0 ... R (B, 1, D, H, W) of the patches `grid * patch`; None is background everywhere.
        patch: voxels of a patch.
        num_regions: R.
        batch: B.
        grid: patches along D, H, W.
        device: of the shares of None.

    Raises:
        ValueError: ids of another shape, or outside 0 ... R.
    """
    patches, columns = grid[0] * grid[1] * grid[2], num_regions + 1
    if regions is None:
        shares = torch.zeros(batch, patches, columns, device=device)
        shares[:, :, 0] = 1
        return shares
    ids = convert_to_tensor(regions, track_meta=False)
    expected = (batch, 1, *(g * p for g, p in zip(grid, patch, strict=True)))
    if ids.shape != expected:
        raise ValueError(f"regions must be (B, 1, D, H, W) = {expected}, got {tuple(ids.shape)}")
    if ids.amin() < 0 or ids.amax() > num_regions:
        raise ValueError(f"regions must be ids 0 ... {num_regions}, got {ids.amin():g} ... {ids.amax():g}")
    bins = into_patches(ids, patch).to(torch.int32)  # (B, N, voxels)
    cells = batch * patches
    bins += (columns * torch.arange(cells, dtype=torch.int32, device=bins.device)).view(batch, patches, 1)
    counts = torch.bincount(bins.flatten(), minlength=cells * columns)
    return counts.view(batch, patches, columns).float() / bins.shape[2]


@full_precision
def region_geometry(assignment: Tensor, grid: Sequence[int]) -> Tensor:
    """Place of every region (B, R, 8) on the patch grid, from the shares A (B, N, R + 1); 0 where absent.

    Columns: share of the volume, centroid along D, H, W and standard deviation along D, H, W (each axis spans
    -1 ... 1), presence 0 or 1.
    """
    axes = [(2 * torch.arange(n, device=assignment.device) + 1) / n - 1 for n in grid]
    centers = torch.cartesian_prod(*axes).to(assignment)  # (N, 3)
    shares = assignment[..., 1:].mT  # (B, R, N)
    total = shares.sum(dim=2, keepdim=True)
    divisor = torch.where(total > 0, total, 1.0)
    mean = shares @ centers / divisor
    variance = shares @ centers.square() / divisor - mean.square()
    volume = total / centers.shape[0]
    return torch.cat([volume, mean, variance.clamp_min(0).sqrt(), (total > 0).to(shares)], dim=2)
