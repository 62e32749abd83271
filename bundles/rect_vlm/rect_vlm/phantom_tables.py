"""The tables of a simulated cohort, with the names and columns of CT-RATE (arXiv 2403.17834)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from medbundles.atomic import write_text

from rect_vlm.findings import FINDINGS

REPORT_COLUMNS = (
    "VolumeName",
    "ClinicalInformation_EN",
    "Technique_EN",
    "Findings_EN",
    "Impressions_EN",
)
LABEL_COLUMNS = ("VolumeName", *FINDINGS)
METADATA_COLUMNS = (
    "VolumeName", "Manufacturer", "SeriesDescription", "ManufacturerModelName", "PatientSex", "PatientAge",
    "ReconstructionDiameter", "DistanceSourceToDetector", "DistanceSourceToPatient", "GantryDetectorTilt",
    "TableHeight", "RotationDirection", "ExposureTime", "XRayTubeCurrent", "Exposure", "FilterType",
    "GeneratorPower", "FocalSpots", "ConvolutionKernel", "PatientPosition", "RevolutionTime",
    "SingleCollimationWidth", "TotalCollimationWidth", "TableSpeed", "TableFeedPerRotation",
    "SpiralPitchFactor", "DataCollectionCenterPatient", "ReconstructionTargetCenterPatient",
    "ExposureModulationType", "CTDIvol", "ImagePositionPatient", "ImageOrientationPatient", "SliceLocation",
    "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "XYSpacing", "RescaleIntercept",
    "RescaleSlope", "RescaleType", "NumberofSlices", "ZSpacing", "StudyDate",
)  # fmt: skip
# In each folder CT-RATE names the tables of a split in its own way.
TABLES = {
    "reports": ("radiology_text_reports/{}_reports.csv", REPORT_COLUMNS),
    "labels": ("multi_abnormality_labels/{}_predicted_labels.csv", LABEL_COLUMNS),
    "metadata": ("metadata/{}_metadata.csv", METADATA_COLUMNS),
}
LONG_NAMES = {"train": "train", "valid": "validation"}


def table_path(folder: Path, table: str, split: str) -> Path:
    """Where the table "reports", "labels" or "metadata" of a split lies."""
    name = split if table == "labels" else LONG_NAMES[split]
    return folder / TABLES[table][0].format(name)


def write_table(folder: Path, table: str, split: str, rows: Iterable[Mapping[str, object]]) -> None:
    """Write a table in one step; cells that a row does not have stay empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, TABLES[table][1], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(table_path(folder, table, split), text.getvalue())


def label_row(volume: str, labels: Sequence[int]) -> dict[str, object]:
    """Row of the label table."""
    return {"VolumeName": volume, **dict(zip(FINDINGS, labels, strict=True))}


def report_row(volume: str, technique: str, findings: str, impression: str) -> dict[str, object]:
    """Row of the report table."""
    cells = (volume, "Not given.", technique, findings, impression)
    return dict(zip(REPORT_COLUMNS, cells, strict=True))


def metadata_row(
    volume: str, shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> dict[str, object]:
    """Row of the metadata table of a volume (D,H,W) with its mm per voxel.

    As in CT-RATE the slope and intercept are those of the raw release: the volumes hold HU already.
    """
    return {
        "VolumeName": volume,
        "Manufacturer": "medbundles",
        "ManufacturerModelName": "simulated chest",
        "PatientPosition": "HFS",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": shape[1],
        "Columns": shape[2],
        "XYSpacing": str([round(spacing[1], 5), round(spacing[2], 5)]),
        "RescaleIntercept": -8192,
        "RescaleSlope": 1,
        "RescaleType": "HU",
        "NumberofSlices": shape[0],
        "ZSpacing": round(spacing[0], 5),
    }
