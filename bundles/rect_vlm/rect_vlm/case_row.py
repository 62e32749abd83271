"""What is told of one case: findings, lesions with volume and place, evidence, report, and warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rect_vlm.evidence import TAG
from rect_vlm.findings import FINDINGS, LESIONS, lesion_title
from rect_vlm.geometry import Geometry
from rect_vlm.lesion_maps import LesionMaps
from rect_vlm.predictions import HALF, Threshold, finding_limits

Row = dict[str, Any]
LEAST_SEEN = 0.98  # of the scan; padding to whole voxels is no news


def prediction_row(
    case: Mapping[str, Any],
    probabilities: Tensor,
    masks: Tensor,
    maps: LesionMaps,
    evidence: Sequence[str],
    report: str | None,
    threshold: Threshold = HALF,
) -> Row:
    """The content of prediction.json but for notes, seconds and fingerprint.

    Args:
        case: of `cases_from`.
        probabilities: (18,) of the findings.
        masks: (5, D, H, W) probabilities on the model grid.
        maps: the same on the voxels of the file.
        evidence: lines of `evidence.describe`.
        report: None where none was asked for.
        threshold: a finding is present above it, one for all or one for each of the 18.
    """
    limits = finding_limits(threshold)
    chances = dict(zip(FINDINGS, map(_short, probabilities.tolist()), strict=True))
    peaks = masks.flatten(1).max(dim=1).values.tolist()
    known = {key: case[key] for key in ("regions", "report", "labels") if case.get(key) is not None}
    row: Row = {
        "id": case["id"],
        "image": str(case["image"]),
        "segmentation": known.get("regions"),
        "findings": chances,
        "present": [
            name for (name, chance), limit in zip(chances.items(), limits, strict=True) if chance > limit
        ],
        "lesions": {
            lesion: {
                "volume_ml": round(maps.volumes[lesion], 3),
                "location": place_of(lesion, evidence),
                "highest_probability": _short(peak),
            }
            for lesion, peak in zip(LESIONS, peaks, strict=True)
        },
        "evidence": list(evidence),
        "report": report,
    }
    if "report" in known:
        row["reference"] = known["report"]
    if "labels" in known:
        truth = {name: int(value) for name, value in zip(FINDINGS, known["labels"], strict=True)}
        row["labels"] = {name: value for name, value in truth.items() if value >= 0}
    return row


def place_of(lesion: str, evidence: Sequence[str]) -> str | None:
    """Where the evidence says that a lesion is; None when it does not tell of it."""
    start = f"{TAG} {lesion_title(lesion)} detected in "
    return next((line.removeprefix(start) for line in evidence if line.startswith(start)), None)


def notes(case: Mapping[str, Any], geometry: Geometry, maps: LesionMaps) -> list[str]:
    """What a reader of the prediction must know of its input."""
    found = []
    if case.get("regions") is None:
        found.append("no segmentation of the anatomy: places are thirds of the chest, not lobes")
    seen = share_seen(maps.labels.shape, maps.affine, geometry)
    if seen < LEAST_SEEN:
        d, h, w = (size * mm for size, mm in zip(geometry.img_size, geometry.spacing or (), strict=True))
        found.append(
            f"the model sees {w:.0f} x {h:.0f} x {d:.0f} mm around the middle of the scan, {seen:.0%} of it: "
            "lesions beyond are missed"
        )
    return found


def share_seen(shape: Sequence[int], affine: NDArray[np.float64], geometry: Geometry) -> float:
    """Share of a scan (X, Y, Z) that lies in the model's volume, which shares its middle."""
    if geometry.spacing is None:  # the whole scan, whatever its size
        return 1.0
    axes = nib.orientations.io_orientation(affine)[:, 0].astype(int)  # 0 right-left, 1 front-back, 2 up-down
    seen = np.multiply(geometry.img_size, geometry.spacing)[[2, 1, 0]][axes]
    size = np.multiply(shape, nib.affines.voxel_sizes(affine))
    return float(np.minimum(seen / size, 1).prod())


def _short(value: float) -> float:
    return float(f"{value:.4g}")
