"""The demo's pictures and texts: slices as readers see them, lesions one by one, findings sorted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rect_tiny_ctrate import AFFINE, LESION, chest
from rect_vlm import demo_text as texts
from rect_vlm.demo_scan import Scan
from rect_vlm.demo_slices import (
    PLANES,
    WINDOWS,
    best_slice,
    draw_slice,
    picture_size,
    slice_count,
    slice_html,
)
from rect_vlm.findings import FINDINGS, LESIONS
from rect_vlm.slice_figures import OUTLINES

NODULE = LESIONS.index("lung_nodule")


def row(**changes: object) -> dict:
    chances = {name: (i + 1) / 20 for i, name in enumerate(FINDINGS)}
    lesions = {name: {"volume_ml": 0.0, "location": None, "highest_probability": 0.1} for name in LESIONS}
    lesions["lung_nodule"] = {"volume_ml": 3.21, "location": "right <upper> lobe", "highest_probability": 0.9}
    known = {"id": "a", "image": "a.nii.gz", "findings": chances, "lesions": lesions, "evidence": []}
    return (
        known | {"present": [name for name, value in chances.items() if value > 0.5], "notes": []} | changes
    )


@pytest.fixture
def scan(tmp_path: Path) -> Scan:
    """A chest with its nodule outlined, and an effusion that overlaps it."""
    hu, lesion, _ = chest()
    bits = (lesion << NODULE).astype(np.uint8)
    bits[LESION] |= 1 << LESIONS.index("pleural_effusion")
    bits[20:30, 11:15, 19:23] |= 1 << LESIONS.index("pleural_effusion")
    return Scan(hu, bits, AFFINE, row(), tmp_path)


def painted(scan: Scan, plane: str, index: int, lesion: str) -> np.ndarray:
    """Pixels that the outline of a lesion changes."""
    drawn = [draw_slice(scan, plane, index, "Lung", shown) for shown in ([], [lesion])]
    return (drawn[0] != drawn[1]).any(axis=-1)


@pytest.mark.parametrize(
    ("plane", "top", "left"), [("Axial", False, True), ("Coronal", True, True), ("Sagittal", True, False)]
)
def test_a_nodule_of_the_right_apex_behind_is_drawn_where_readers_look_for_it(scan, plane, top, left) -> None:
    index = best_slice(scan, plane, "lung_nodule")
    inside = painted(scan, plane, index, "lung_nodule")
    rows, columns = (axis.mean() / size for axis, size in zip(np.nonzero(inside), inside.shape, strict=True))
    assert (rows < 0.5) == top
    assert (columns < 0.5) == left
    start = LESION[PLANES[plane].axis].start
    assert start <= index < LESION[PLANES[plane].axis].stop
    assert not painted(scan, plane, start - 2, "lung_nodule").any()


def test_overlapping_lesions_are_switched_one_by_one_in_their_own_colours(scan) -> None:
    index = best_slice(scan, "Axial", "lung_nodule")
    for lesion in ("lung_nodule", "pleural_effusion"):
        color = [int(OUTLINES[lesion][i : i + 2], 16) for i in (1, 3, 5)]
        for shown, there in (([lesion], True), ([], False)):
            assert (draw_slice(scan, "Axial", index, "Bone", shown) == color).all(-1).any() == there
    assert not painted(scan, "Axial", index, "consolidation").any()


def test_pixels_are_square_and_windows_are_those_of_their_names(scan) -> None:
    stretched = Scan(scan.hu, scan.lesions, AFFINE @ np.diag([1, 1, 3, 1]), scan.row, scan.store)
    width, height = picture_size(stretched, "Coronal")
    assert width / height == pytest.approx(40 / (30 * 3), rel=0.01)
    means = [draw_slice(scan, "Axial", 15, window, []).mean() for window in WINDOWS]
    assert len({round(mean) for mean in means}) == len(WINDOWS)
    for plane in PLANES:
        last = slice_count(scan, plane) - 1
        beyond = draw_slice(scan, plane, last + 9, "Lung", [])
        np.testing.assert_array_equal(beyond, draw_slice(scan, plane, last, "Lung", []))
    told = slice_html(scan, "Axial", 20, "Lung", ["lung_nodule"])
    assert "Axial 21 of 30 · z 160 mm" in told
    assert 'alt="Axial slice 21, Lung nodule"' in told
    assert "data:image/jpeg;base64," in told


def test_findings_are_sorted_and_marked_and_texts_are_escaped() -> None:
    found = texts.finding_rows(row())
    assert [finding.name for finding in found] == list(reversed(FINDINGS))
    assert [finding.present for finding in found] == [finding.probability > 0.5 for finding in found]
    page = texts.findings_html(row(), 0.5)
    assert page.count('class="present"') == sum(finding.present for finding in found) == 8
    labels = {name: label for label, name in texts.lesion_choices(row())}
    assert labels["lung_nodule"] == "Lung nodule: 3.2 ml"
    assert labels["consolidation"] == "Consolidation: none"
    assert "right &lt;upper&gt; lobe" in texts.lesions_html(row())
    assert "&lt;b&gt;" in texts.error_html("<b>")
    assert "&lt;b&gt;" in texts.evidence_html(row(evidence=["<b>"]))
    assert "&lt;b&gt;" in texts.done_html(row(image="<b>", notes=["<b>"]))
