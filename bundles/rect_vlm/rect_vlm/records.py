"""What one CT volume is after reading the tables: its files, how it becomes HU, its labels and its report."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from rect_vlm.findings import FINDINGS

UNKNOWN = -1.0
# All that decides how a volume is prepared: labels and reports may change without preparing it again.
VOLUME_KEYS = (
    *("id", "image", "intensity", "hu_source", "slope", "intercept", "spacing"),
    *("regions", "lesion_masks", "mask_values"),
)


class Record(TypedDict):
    """One volume.

    id: volume name; scan: what its reconstructions share; patient. image: NIfTI file, DICOM folder or npz
    file. intensity: "hu" or "uint8_window". hu_source: "nifti" or "metadata", then with slope, intercept
    and spacing (x, y, z mm) of the metadata table. labels: 18 of 0, 1 or -1 (unknown), None without a row.
    report: "" = none. lesion_masks: file per lesion that was looked for; mask_values: the value of the lesion
    in it, any but zero where there is none. regions: label map of TotalSegmentator's classes.
    """

    id: str
    scan: str
    patient: str
    split: str
    image: str
    intensity: str
    hu_source: str
    slope: float | None
    intercept: float | None
    spacing: tuple[float, float, float] | None
    labels: list[float] | None
    report: str
    lesion_masks: dict[str, str]
    mask_values: dict[str, int]
    regions: str | None


def volume_of(record: Record) -> dict[str, Any]:
    """The part of a record that decides how its volume is prepared."""
    return {key: record[key] for key in VOLUME_KEYS}  # type: ignore[literal-required]


def describe(record: Mapping[Any, Any]) -> str:
    """Name a record for a message: volume and file, as far as it has them."""
    image = record.get("image")
    names = [record.get("id"), f"({image})" if isinstance(image, str | os.PathLike) else None]
    return " ".join(str(name) for name in names if name) or "volume"


def first_reconstructions(records: Sequence[Record]) -> list[Record]:
    """The first volume of every scan: evaluation counts a scan once."""
    first: dict[str, Record] = {}
    for record in records:
        first.setdefault(record["scan"], record)
    return list(first.values())


def hold_out(
    records: Sequence[Record], share: float = 0.1, seed: int = 0
) -> tuple[list[Record], list[Record]]:
    """Split records into (rest, held out) by patient, e.g. to choose thresholds; the same for one seed.

    Raises:
        ValueError: share is not in (0, 1), or there are fewer than two patients.
    """
    patients = sorted({record["patient"] for record in records})
    if not 0 < share < 1 or len(patients) < 2:
        raise ValueError(
            f"share must lie in (0, 1) and there must be 2 patients, got {share} of {len(patients)} patients"
        )
    order = np.random.default_rng(seed).permutation(len(patients))
    count = min(max(1, round(share * len(patients))), len(patients) - 1)
    held = {patients[i] for i in order[:count]}
    rest = [record for record in records if record["patient"] not in held]
    return rest, [record for record in records if record["patient"] in held]


def label_table(records: Sequence[Record]) -> Tensor:
    """Labels (records, 18) float32, -1 where unknown."""
    rows = [record["labels"] or [UNKNOWN] * len(FINDINGS) for record in records]
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, len(FINDINGS))


def prevalence(records: Sequence[Record]) -> Tensor:
    """Share of scans (18,) with each finding, among those where it is known; 0.5 where it never is."""
    labels = label_table(first_reconstructions(records))
    known = labels >= 0
    positives = torch.where(known, labels, 0.0).sum(0)
    return torch.where(known.any(0), positives / known.sum(0).clamp_min(1), 0.5)
