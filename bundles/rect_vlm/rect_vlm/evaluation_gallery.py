"""Scans to look at: slices with both outlines, findings, and both reports side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from medbundles.report import HtmlReport
from numpy.typing import NDArray
from tqdm import tqdm

from rect_vlm.case_steps import open_volume
from rect_vlm.data import CtDataset
from rect_vlm.evaluated import Evaluated
from rect_vlm.evaluation_scans import ScanReader
from rect_vlm.findings import FINDINGS, LESIONS, lesion_title
from rect_vlm.grids import VolumeGrid
from rect_vlm.lesion_masks import lesion_bits
from rect_vlm.records import UNKNOWN, Record

GALLERY = """The scans are not chosen for their looks. All are ordered by the F1 of the findings in their \
report, then by how far their probabilities are from the labels: the first third of those below are the \
worst of all, the others stand at even distances in the rest of the order. Slices are shown as \
radiologists see them, the patient's right (R) on the left. Where lesions overlap, one is drawn."""


def worst_and_spread(order: Sequence[int], n: int) -> list[int]:
    """Of scans ordered from the worst, the first third of `n` and the others evenly spread over the rest."""
    n = min(n, len(order))
    worst = n // 3
    rest = np.linspace(worst, len(order) - 1, n - worst).round().astype(int)
    return [order[i] for i in (*range(worst), *rest.tolist())]


def add_gallery(page: HtmlReport, found: Evaluated, reader: ScanReader, dataset: CtDataset, n: int) -> None:
    """Add up to `n` scans to the page.

    Args:
        page: to write to.
        found: what is known of all scans.
        reader: outlines the lesions of the chosen scans once more.
        dataset: of all scans.
        n: scans on the page.
    """
    f1, error = _report_f1(found), _label_error(found)
    order = np.lexsort((-error, f1)).tolist()  # the last key counts most
    page.heading("Scans")
    page.paragraph(GALLERY)
    for place in tqdm(worst_and_spread(order, n), desc="scans on the page", ncols=110):
        _add_scan(page, found, reader, dataset, place, float(f1[place]))


def _add_scan(
    page: HtmlReport, found: Evaluated, reader: ScanReader, dataset: CtDataset, place: int, f1: float
) -> None:
    from rect_vlm.evaluation_figures import outline_comparison
    from rect_vlm.slice_figures import finding_bars

    record, reading = found.records[place], found.readings[place]
    maps = reader.maps(dataset, place)
    image, stored = open_volume(record)
    hu = image.numpy()[0]
    subtitle = "no true masks" if not record["lesion_masks"] else ""
    figure = outline_comparison(
        hu,
        maps.labels,
        true_labels(record, stored),
        VolumeGrid(hu.shape, maps.affine),
        record["id"],
        subtitle,
    )
    page.figure(figure, f"{record['id']}: outlines of the model and of the true masks")
    probabilities = dict(zip(FINDINGS, reading.probabilities.tolist(), strict=True))
    labels = dict(zip(FINDINGS, record["labels"] or [UNKNOWN] * len(FINDINGS), strict=True))
    page.figure(finding_bars(probabilities, labels=labels), f"{record['id']}: probabilities of the findings")
    if reading.lesions:
        page.table(_lesion_rows(reading.lesions), f"{record['id']}: lesions with a true mask")
    if reading.report is not None:
        known = "" if np.isinf(f1) else f", F1 of its findings {f1:.2f}"
        page.table(report_rows(reading.report, record["report"]), f"{record['id']}: reports{known}")
        page.paragraph(f"Evidence the report was written with: {'; '.join(reading.evidence)}.")


def true_labels(record: Record, grid: VolumeGrid) -> NDArray[np.uint8]:
    """The true masks of a record as a label map (X, Y, Z): 0, or 1 + index in LESIONS of the last of them."""
    bits = lesion_bits(record, grid)
    labels = np.zeros(grid.shape, dtype=np.uint8)
    for k in range(len(LESIONS)):
        labels[(bits >> k) & 1 > 0] = k + 1
    return labels


def report_rows(generated: str, reference: str) -> list[dict[str, str]]:
    """Findings and impression of two reports beside each other."""
    said, true = sections(generated), sections(reference)
    return [{"section": name, "generated": said[name], "reference": true[name]} for name in said]


def sections(report: str) -> dict[str, str]:
    """Text of the sections `findings` and `impression`, each "–" where it is missing."""
    findings, _, impression = report.partition("IMPRESSION:")
    parts = {"findings": findings.replace("FINDINGS:", "", 1), "impression": impression}
    return {name: " ".join(text.split()) or "–" for name, text in parts.items()}


def _lesion_rows(lesions: Any) -> list[dict[str, Any]]:
    names = {"true_ml": "true (ml)", "found_ml": "outlined (ml)", "dice": "Dice", "hd95_mm": "HD95 (mm)"}
    return [
        {"lesion": lesion_title(lesion)} | {title: scores[key] for key, title in names.items()}
        for lesion, scores in lesions.items()
    ]


def _report_f1(found: Evaluated) -> NDArray[np.float64]:
    """Of every scan (N,); infinite where there is no reference."""
    f1 = np.full(len(found.records), np.inf)
    if found.reports is not None:
        f1[list(found.reports.places)] = found.reports.f1
    return f1


def _label_error(found: Evaluated) -> NDArray[np.float64]:
    """Mean distance of the probabilities from the known labels (N,)."""
    errors = np.zeros(len(found.records))
    for i, (record, reading) in enumerate(zip(found.records, found.readings, strict=True)):
        labels = np.array(record["labels"] or [UNKNOWN] * len(FINDINGS))
        if (known := labels >= 0).any():
            errors[i] = np.abs(reading.probabilities.numpy()[known] - labels[known]).mean()
    return errors
