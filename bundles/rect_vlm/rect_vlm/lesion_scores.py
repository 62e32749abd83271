"""How well lesions are outlined on the voxels of the file: overlap where there is one, else false volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
from medbundles.resampling import Floats
from numpy.typing import NDArray
from torch import Tensor

from rect_vlm.finding_scores import weighted_mean
from rect_vlm.findings import LESIONS
from rect_vlm.lesion_maps import lesion_box, map_in_box, own_grid
from rect_vlm.lesion_masks import lesion_bits
from rect_vlm.records import Record
from rect_vlm.studies import Study
from rect_vlm.volume_files import read_grid

Mask = NDArray[np.bool_]
ON_POSITIVES = ("dice", "iou", "hd95_mm", "sensitivity", "hit")
ON_NEGATIVES = ("false_ml", "false_alarm")
MEASURES = (*ON_POSITIVES, *ON_NEGATIVES, "true_ml", "found_ml", "shared_ml")
HIT = 0.1  # Dice of a lesion that counts as found, of ReXGroundingCT (arXiv 2507.22030)


def file_mask(study: Study, mask: Tensor, threshold: float = 0.5) -> Mask:
    """Where a probability mask (D, H, W) of the model grid is above the threshold on the file (X, Y, Z)."""
    found = np.zeros(own_grid(study)[2], dtype=bool)
    box = lesion_box(study, mask > threshold)
    if box is not None:
        found[box] = map_in_box(study, mask, box) > threshold
    return found


def scan_scores(
    record: Record, study: Study, masks: Tensor, threshold: float = 0.5
) -> dict[str, dict[str, float]]:
    """MEASURES of every lesion with a true mask, see `overlap_scores`.

    Args:
        record: whose mask files are read.
        study: its volume.
        masks: probabilities (5, D, H, W) on the model grid.
        threshold: a voxel belongs to a lesion above it.

    Raises:
        ValueError: a mask file that is not on the grid of the volume.
    """
    if not record["lesion_masks"] or study.source_affine is None:
        return {}
    bits = lesion_bits(record, read_grid(record["image"]))
    spacing = [float(size) for size in nib.affines.voxel_sizes(np.asarray(study.source_affine))]
    return {
        lesion: overlap_scores(file_mask(study, masks[k], threshold), (bits >> k) & 1 > 0, spacing)
        for k, lesion in enumerate(LESIONS)
        if lesion in record["lesion_masks"]
    }


def overlap_scores(found: Mask, true: Mask, spacing: Sequence[float]) -> dict[str, float]:
    """MEASURES of one lesion of one scan; NaN where one is not defined.

    Args:
        found, true: (X, Y, Z).
        spacing: mm per voxel.

    Returns:
        Where there is a lesion `dice`, `iou`, `sensitivity` (share of its voxels), `hit` (Dice of at least
        0.1), and `hd95_mm` (95th percentile Hausdorff distance) if anything was outlined; where there is
        none `false_ml` and whether that is more than nothing, `false_alarm`. Always the volumes `true_ml`,
        `found_ml` and, of both, `shared_ml`.
    """
    scores = dict.fromkeys(MEASURES, float("nan"))
    millilitres = float(np.prod(spacing)) / 1000
    size, wanted = np.count_nonzero(found), np.count_nonzero(true)
    shared = np.count_nonzero(found & true)
    volumes = {"true_ml": wanted, "found_ml": size, "shared_ml": shared}
    scores |= {name: voxels * millilitres for name, voxels in volumes.items()}
    if not wanted:
        return scores | {"false_ml": size * millilitres, "false_alarm": float(size > 0)}
    dice = 2 * shared / (size + wanted)
    scores |= {"dice": dice, "iou": shared / (size + wanted - shared), "sensitivity": shared / wanted}
    scores |= {"hit": float(dice >= HIT)}
    if size:
        scores["hd95_mm"] = _hausdorff(found, true, spacing)
    return scores


def _hausdorff(found: Mask, true: Mask, spacing: Sequence[float]) -> float:
    import torch
    from monai.metrics import compute_hausdorff_distance

    box = _box(found | true)  # distances from border to border do not leave it
    said, wanted = (torch.from_numpy(np.ascontiguousarray(mask[box]))[None, None] for mask in (found, true))
    distance = compute_hausdorff_distance(said, wanted, True, percentile=95, spacing=list(spacing))
    return float(distance)


def _box(mask: Mask) -> tuple[slice, ...]:
    held = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return tuple(slice(int(places[0]), int(places[-1]) + 1) for places in held)


def lesion_table(scans: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Floats]:
    """MEASURES of N scans as tables (N, 5), NaN where unknown."""
    missing = dict.fromkeys(MEASURES, float("nan"))
    return {
        name: np.array([[scan.get(lesion, missing)[name] for lesion in LESIONS] for scan in scans])
        for name in MEASURES
    }


def lesion_summary(table: Mapping[str, Floats], weights: Floats | None = None) -> dict[str, Any]:
    """Means (..., 6) over scans, of each lesion and, last, over all pairs of a scan and a lesion.

    `global_dice` is that of the voxels of all scans with the lesion together.

    Args:
        table: of `lesion_table`.
        weights: (..., N) of the scans.
    """
    w = np.ones(len(table["dice"])) if weights is None else weights
    summary = {name: _with_all(table[name], w) for name in (*ON_POSITIVES, *ON_NEGATIVES)}
    positive = np.where(table["true_ml"] > 0, 1.0, np.nan)
    both = _with_all(positive * table["shared_ml"], w)
    sizes = _with_all(positive * (table["true_ml"] + table["found_ml"]), w)
    return summary | {"global_dice": 2 * both / np.where(sizes > 0, sizes, np.nan)}


def _with_all(values: Floats, weights: Floats) -> Floats:
    flat = values.reshape(-1, 1)
    pooled = weighted_mean(flat, np.repeat(weights, values.shape[1], axis=-1))
    return np.concatenate([weighted_mean(values, weights), pooled], axis=-1)


def counts(table: Mapping[str, Floats]) -> dict[str, NDArray[np.int64]]:
    """Scans (6,) that hold each lesion, those of them in which it was outlined at all, and those without."""
    columns = {
        "positives": table["true_ml"] > 0,
        "outlined": ~np.isnan(table["hd95_mm"]),
        "negatives": ~np.isnan(table["false_ml"]),
    }
    return {name: np.append(cells.sum(axis=0), cells.sum()) for name, cells in columns.items()}
