"""Pictures: right is on the left whatever the file's axes, and every lesion is shown."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from rect_tiny_ctrate import AFFINE, chest
from rect_vlm.findings import FINDINGS, LESIONS
from rect_vlm.slice_figures import (
    AXIAL,
    CORONAL,
    LUNG_HU,
    SOFT_TISSUE_HU,
    body_box,
    choose_panels,
    cut,
    finding_bars,
    slice_montage,
    to_ras,
)

NODULE = LESIONS.index("lung_nodule") + 1
EFFUSION = LESIONS.index("pleural_effusion") + 1


def turned(array: np.ndarray, axes: str) -> tuple[np.ndarray, np.ndarray]:
    image = nib.Nifti1Image(array, AFFINE)
    image = image.as_reoriented(nib.orientations.axcodes2ornt(axes))
    return np.asarray(image.dataobj), image.affine


@pytest.mark.parametrize("axes", ["LPS", "RAS", "PSR", "IAL"])
def test_any_order_of_axes_gives_the_same_arrays(axes: str) -> None:
    hu, _, _ = chest()
    found, affine = to_ras(*turned(hu, axes))
    np.testing.assert_array_equal(found, hu)
    np.testing.assert_allclose(affine, AFFINE)


def test_the_patients_right_is_on_the_left_and_front_and_head_are_on_top() -> None:
    _, lesion, _ = chest()  # right apex, behind
    _, y, z = (int(side.mean()) for side in np.nonzero(lesion))
    rows, columns = np.nonzero(cut(lesion, AXIAL, z))
    assert columns.max() < lesion.shape[0] / 2
    assert rows.min() > lesion.shape[1] / 2
    rows, columns = np.nonzero(cut(lesion, CORONAL, y))
    assert columns.max() < lesion.shape[0] / 2
    assert rows.max() < lesion.shape[2] / 2


def test_every_lesion_has_its_fullest_slice_in_its_window() -> None:
    hu, lesion, _ = chest()
    labels = lesion * NODULE
    labels[10:16, 12:20, 4:9] = EFFUSION
    labels[9, 12:20, 6] = EFFUSION
    panels = choose_panels(hu, labels, AFFINE)
    assert len(panels) == 8
    assert [panel.title.split("\n")[0] for panel in panels[:2]] == ["Pleural effusion", "Lung nodule"]
    assert (panels[0].index, panels[0].window) == (6, SOFT_TISSUE_HU)
    assert (labels[:, :, panels[1].index] == NODULE).any()
    assert panels[1].window == LUNG_HU
    assert panels[0].title.endswith("z 48 mm")
    overview = [panel.index for panel in panels[2:-1]]
    assert overview == sorted(set(overview), reverse=True)
    assert panels[-1].axis == CORONAL
    assert (labels[:, panels[-1].index] > 0).any()


def test_without_a_lesion_the_slices_are_spread_over_the_scan() -> None:
    hu, _, _ = chest()
    panels = choose_panels(hu, np.zeros(hu.shape, np.uint8), AFFINE)
    assert [panel.index for panel in panels] == [27, 23, 19, 15, 10, 6, 2, panels[-1].index]


def test_the_montage_names_sides_and_lesions() -> None:
    hu, lesion, _ = chest()
    (volume, affine), (labels, _) = turned(hu, "LPS"), turned(lesion * NODULE, "LPS")
    figure = slice_montage(volume, labels, affine, "case")
    assert len(figure.axes) == 8
    for ax in figure.axes:
        names = [text.get_text() for text in ax.texts]
        places = [text.get_position()[0] for text in ax.texts]
        assert names[:2] == ["R", "L"]
        assert places[0] < places[1]
    assert figure.axes[0].collections  # the outline
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Lung nodule"]
    with pytest.raises(ValueError, match="must share one shape"):
        slice_montage(hu, lesion[1:], AFFINE)


def test_the_body_is_framed_without_the_table() -> None:
    volume = np.full((60, 60, 20), -1000.0)
    volume[20:40, 15:45] = 0
    volume[2:58, 2] = 200  # as wide as it is thin
    (x0, x1), (y0, y1), (z0, z1) = body_box(volume, (2.0, 2.0, 2.0))
    assert x0 == pytest.approx(14, abs=2)
    assert x1 == pytest.approx(45, abs=2)
    assert y0 == pytest.approx(9, abs=2)
    assert y1 == pytest.approx(50, abs=2)
    assert (z0, z1) == (0, 19)
    assert body_box(np.full((4, 5, 6), -1000.0), (1, 1, 1)) == [(0, 3), (0, 4), (0, 5)]


def test_bars_rise_with_probability_and_mark_what_is_known() -> None:
    probabilities = {name: i / 20 for i, name in enumerate(FINDINGS)}
    ax = finding_bars(probabilities, 0.5, {FINDINGS[3]: 1, FINDINGS[4]: 0}).axes[0]
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == sorted(probabilities.values())
    assert len({bar.get_facecolor() for bar in ax.patches}) == 2
    assert len([line for line in ax.lines if line.get_marker() == "o"]) == 1
