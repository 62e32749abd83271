"""The page of one inference run: each CT with its slices, lesions, findings, evidence and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medbundles.report import HtmlReport

from rect_vlm.findings import FINDINGS, lesion_title

Row = dict[str, Any]

READING = """Slices are shown as radiologists see them: the patient's right (R) is on the left; A is the \
front, P the back, S the head. Of every lesion that was outlined the axial slice with most of it is shown, \
effusions in the soft-tissue window (-160..240 HU), everything else in the lung window (-1350..150 HU); the \
other axial slices are spread over the scan. z is the height in the scanner's coordinates.

Outlines are where a lesion's probability is above the threshold, carried from the model's own grid to the \
voxels of the file: they are as coarse as that grid. Where two lesions overlap the likelier one is drawn, \
and each has its own volume in the table. A place is told when a connected part is large enough.

The evidence is what the language model was told besides the image. Probabilities are those of the network \
and are not calibrated, and a report can say what neither they nor the image support."""


def write_page(
    path: str | Path, rows: Sequence[Row], total: int, picture: str, thresholds: Sequence[float]
) -> Path:
    """Write the page and return its path; no network is needed to read it.

    Args:
        path: HTML file, in the folder that holds the folders of the cases.
        rows: predictions in the order of the page.
        total: cases in the run, of which `rows` are shown.
        picture: name of the file with the slices in the folder of a case; it may be missing.
        thresholds: of the 18 findings.
    """
    from tqdm import tqdm

    shown = f"{len(rows)} of {total} CTs" if len(rows) < total else f"{total} CTs"
    page = HtmlReport("Chest CT reports", f"{shown}. Written by a network for research, not for diagnosis.")
    page.heading("How to read this page")
    page.paragraph(READING)
    limits = dict(zip(FINDINGS, thresholds, strict=True))
    for row in tqdm(rows, desc="page", ncols=110):
        _add_case(page, row, Path(path).parent / row["id"] / picture, limits)
    return page.save(path)


def _add_case(page: HtmlReport, row: Row, picture: Path, limits: Mapping[str, float]) -> None:
    from rect_vlm.slice_figures import finding_bars

    name = row["id"]
    page.heading(name)
    for note in row["notes"]:
        page.paragraph(f"Note: {note}.")
    if picture.is_file():
        page.figure(picture, f"{name}: slices with the outlines of the lesions.")
    page.table(_lesion_rows(row), "Lesions that are outlined")
    present = ", ".join(row["present"]) or "none"
    page.figure(
        finding_bars(row["findings"], limits, row.get("labels"), "Probability of the 18 findings"),
        f"{name}: findings above their threshold, the dotted line: {present}.",
    )
    page.table([{"evidence": line} for line in row["evidence"]], "What the language model was told")
    if row["report"] is not None:
        page.paragraph(f"Report: {row['report'] or '(empty)'}")
    if row.get("reference"):
        page.paragraph(f"Report that came with the scan: {row['reference']}")


def _lesion_rows(row: Row) -> list[Row]:
    return [
        {
            "lesion": lesion_title(lesion),
            "volume (ml)": found["volume_ml"],
            "place": found["location"],
            "highest probability": found["highest_probability"],
        }
        for lesion, found in row["lesions"].items()
    ]
