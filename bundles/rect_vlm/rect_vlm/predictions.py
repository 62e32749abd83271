"""What the model returns: the findings of every scan, and its lesion masks on the grid they came in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from rect_vlm.finding_scores import HALF
from rect_vlm.findings import FINDINGS, LESIONS

Masks: TypeAlias = "dict[str, Tensor | list[Tensor]]"
Threshold: TypeAlias = "float | Sequence[float]"


def classification(probabilities: Tensor, threshold: Threshold = HALF) -> dict[str, Any]:
    """Findings of B scans.

    Args:
        probabilities: (B, 18).
        threshold: a finding is present above it, one for all or one for each of the 18.

    Returns:
        `probabilities` (B, 18), `predictions` (B, 18) int64 of 0 and 1, `disease_names`, for every scan those
        of the findings that are present.

    Raises:
        ValueError: see `finding_limits`.
    """
    present = probabilities > probabilities.new_tensor(finding_limits(threshold))
    names = [[FINDINGS[k] for k in row.nonzero().flatten().tolist()] for row in present]
    return {"probabilities": probabilities, "predictions": present.long(), "disease_names": names}


def localization(scans: Sequence[dict[str, Tensor]], threshold: float = 0.5) -> dict[str, Masks]:
    """Masks of B scans.

    Args:
        scans: for every scan its probability masks by lesion, on its own grid.
        threshold: a voxel belongs to the lesion above it.

    Returns:
        `masks` and, thresholded, `binary_masks` uint8, by lesion: (B, *grid), or a list where grids differ.

    Raises:
        ValueError: threshold is no probability.
    """
    binary = [binary_masks(masks, threshold) for masks in scans]
    return {"masks": _together(scans), "binary_masks": _together(binary)}


def binary_masks(masks: dict[str, Tensor], threshold: float = 0.5) -> dict[str, Tensor]:
    """Masks of one scan, uint8; ValueError for a threshold that is no probability."""
    check_threshold(threshold)
    return {lesion: (mask > threshold).to(torch.uint8) for lesion, mask in masks.items()}


def check_threshold(threshold: float) -> float:
    """The threshold; ValueError when it is no probability."""
    if not 0 <= threshold <= 1:
        raise ValueError(f"a threshold must lie in 0..1, got {threshold}")
    return threshold


def finding_limits(threshold: Threshold) -> tuple[float, ...]:
    """The threshold of each of the 18 findings, from one for all or one for each.

    Raises:
        ValueError: one that is no probability, or another number of them.
    """
    each = [threshold] * len(FINDINGS) if isinstance(threshold, int | float) else list(threshold)
    if len(each) != len(FINDINGS):
        raise ValueError(f"thresholds must be one number or {len(FINDINGS)}, got {len(each)}")
    return tuple(float(check_threshold(limit)) for limit in each)


def _together(scans: Sequence[dict[str, Tensor]]) -> Masks:
    together: Masks = {}
    for lesion in LESIONS:
        masks = [scan[lesion] for scan in scans]
        alike = len({mask.shape for mask in masks}) == 1
        together[lesion] = torch.stack(masks) if alike else masks
    return together
