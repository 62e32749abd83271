"""A tiny cohort in CT-RATE's layout: chests of 8 mm voxels with a lesion in the right apex, behind."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from rect_vlm.findings import FINDINGS
from rect_vlm.geometry import Geometry

SHAPE = (40, 36, 30)  # X, Y, Z in RAS
SPACING = 8.0
# The grid of the files, turned to D, H, W and padded with air.
GEOMETRY = Geometry((32, 40, 40), (SPACING,) * 3, (4, 8, 8))
AFFINE = nib.affines.from_matvec(np.eye(3) * SPACING, [-160, -144, 0])
# "RAS" of NIfTI: X grows to the patient's right, so the right lung lies at high X.
LESION = np.s_[26:30, 11:15, 19:23]
VOLUMES = ("train_1_a_1", "train_1_a_2", "train_2_a_1", "train_3_a_1", "valid_1_a_1", "valid_1_a_2")
RIGHT_UPPER_LOBE, LEFT_UPPER_LOBE = 12, 10  # TotalSegmentator
REPORT = ("A nodule was observed in the right upper lobe.", "Lung nodule.")


def chest(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU, lesion (uint8) and lobes (TotalSegmentator ids) as RAS arrays (X, Y, Z)."""
    x, y, z = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij")
    hu = np.full(SHAPE, -1000.0)
    hu[(x / 17) ** 2 + (y / 13) ** 2 < 1] = 40
    lobes = np.zeros(SHAPE, np.uint8)
    for side, lobe in ((1, RIGHT_UPPER_LOBE), (-1, LEFT_UPPER_LOBE)):
        inside = ((x - 8 * side) / 6) ** 2 + (y / 9) ** 2 + (z / 13) ** 2 < 1
        hu[inside], lobes[inside] = -850, lobe
    lesion = np.zeros(SHAPE, np.uint8)
    lesion[LESION] = 1
    hu[lesion > 0] = 30
    hu += np.random.default_rng(seed).normal(0, 5, SHAPE)
    return np.round(hu).astype(np.int16), lesion, lobes


def save(path: Path, array: np.ndarray, axes: str = "LPS", affine: np.ndarray = AFFINE) -> Path:
    """Write a RAS array with the axes of the file turned to `axes`."""
    image = nib.Nifti1Image(array, affine)
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axes)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image.as_reoriented(turn), path)
    return path


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def label_rows(
    volumes: Sequence[str], columns: Sequence[str] = tuple(reversed(FINDINGS))
) -> list[dict[str, Any]]:
    """Every scan has a nodule, those with an even number an effusion as well."""
    rows = []
    for name in volumes:
        positive = {"Lung nodule"} | ({"Pleural effusion"} if int(name.split("_")[1]) % 2 == 0 else set())
        rows.append({"VolumeName": f"{name}.nii.gz", **{c: int(c in positive) for c in columns}})
    return rows


def report_rows(volumes: Sequence[str]) -> list[dict[str, str]]:
    texts = dict(zip(("Findings_EN", "Impressions_EN"), REPORT, strict=True))
    rest = {"ClinicalInformation_EN": "Not given.", "Technique_EN": "Not given."}
    return [{"VolumeName": f"{name}.nii.gz", **rest, **texts} for name in volumes]


def metadata_rows(volumes: Sequence[str]) -> list[dict[str, Any]]:
    scanner = {"Manufacturer": "test", "RescaleIntercept": -1024, "RescaleSlope": 1}
    voxels = {"XYSpacing": str([SPACING, SPACING]), "ZSpacing": SPACING}
    return [{"VolumeName": f"{name}.nii.gz", **scanner, **voxels} for name in volumes]


def tiny_ctrate(root: Path, masks: bool = True) -> Path:
    """Write the cohort: corrected volumes, tables, lobes, and nodule masks of the first reconstructions."""
    for i, name in enumerate(VOLUMES):
        split, patient, scan = (
            name.split("_")[0],
            "_".join(name.split("_")[:2]),
            "_".join(name.split("_")[:3]),
        )
        place = Path(f"{split}_fixed") / patient / scan / f"{name}.nii.gz"
        hu, lesion, lobes = chest(seed=i)
        save(root / place, hu)
        save(root / "ts_seg" / "ts_total" / place, lobes)
        if masks and name.endswith("1"):
            save(root / "lesion_masks" / "lung_nodule" / f"{name}.nii.gz", lesion, "RAS")
    for split, long in (("train", "train"), ("valid", "validation")):
        names = [name for name in VOLUMES if name.startswith(split)]
        write_rows(root / "multi_abnormality_labels" / f"{split}_predicted_labels.csv", label_rows(names))
        write_rows(root / "radiology_text_reports" / f"{long}_reports.csv", report_rows(names))
        write_rows(root / "metadata" / f"{long}_metadata.csv", metadata_rows(names))
    return root
