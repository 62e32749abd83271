"""DICOM: the CT series of a folder, structures outlined in it, and their conversion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from rect_dicom_files import ct_series, structure_set
from rect_tiny_ctrate import chest
from rect_vlm.dicom_conversion import convert_dicom
from rect_vlm.dicom_series import ct_slices, series_grid
from rect_vlm.rtstruct import find_structure_set, read_structures
from rect_vlm.volume_input import grid_of, read_volume

HU = chest()[0][:, :, :12]
SPACING, ORIGIN = (2.0, 2.5, 4.0), (-30.0, -40.0, 100.0)
SAMPLE = "lung_ct_rtstruct"


def square(low: tuple[float, float], high: tuple[float, float], level: int) -> np.ndarray:
    """A rectangle around voxel centres low..high of a slice, in LPS mm."""
    (x0, y0), (x1, y1) = (np.asarray(low) - 0.4, np.asarray(high) + 0.4)
    index = np.array([[x0, y0, level], [x1, y0, level], [x1, y1, level], [x0, y1, level]])
    return index * SPACING + ORIGIN


@pytest.fixture
def series(tmp_path: Path) -> Path:
    ct_series(tmp_path / "ct", HU, SPACING, ORIGIN)
    return tmp_path / "ct"


def test_a_series_is_read_in_order_with_its_geometry(series: Path) -> None:
    volume = read_volume(series)
    np.testing.assert_array_equal(volume[0].numpy(), HU)
    assert nib.aff2axcodes(volume.affine.numpy()) == ("L", "P", "S")
    np.testing.assert_allclose(volume.affine[:3, 3], np.multiply(ORIGIN, (-1, -1, 1)))
    np.testing.assert_allclose(volume.pixdim, SPACING)


def test_contours_become_a_mask_with_its_hole(series: Path) -> None:
    path = structure_set(
        series / "rs.dcm",
        {
            "GTV-1": [square((4, 5), (9, 11), 3), square((6, 7), (7, 8), 3), square((5, 5), (6, 6), 4)],
            "empty": [],
        },
    )
    assert find_structure_set(series) == path
    masks = read_structures(path, grid_of(read_volume(series)))
    wanted = np.zeros(HU.shape, np.uint8)
    wanted[4:10, 5:12, 3], wanted[6:8, 7:9, 3], wanted[5:7, 5:7, 4] = 1, 0, 1
    np.testing.assert_array_equal(masks["GTV-1"], wanted)
    assert not masks["empty"].any()


def test_a_contour_between_the_slices_is_told(series: Path) -> None:
    beyond = structure_set(series / "rs.dcm", {"GTV": [square((4, 5), (9, 11), 40)]})
    grid = series_grid(ct_slices(series))
    with pytest.raises(ValueError, match=r"rs\.dcm, structure GTV: .*12 slices, got slice 40\.00"):
        read_structures(beyond, grid)


def spoil(path: Path, **changes: object) -> None:
    data = pydicom.dcmread(path)
    for key, value in changes.items():
        delattr(data, key) if value is None else setattr(data, key, value)
    data.save_as(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"RescaleSlope": None, "RescaleIntercept": None},
            r"dcm: a CT slice must have RescaleSlope, RescaleInt",
        ),
        ({"ImagePositionPatient": None}, "must have ImagePositionPatient"),
        ({"ImagePositionPatient": [-30, -40, 109]}, r"slices must be 4 mm apart"),
        ({"SeriesInstanceUID": "1.2.3"}, r"must hold one CT series in DICOM, got .*1\.2\.3 \(1 files\)"),
        ({"PixelSpacing": [1, 1]}, r"PixelSpacing: must be \[2\.5, 2\.0\] as in the first, got \[1.*, 1"),
    ],
)
def test_unusable_series(series: Path, changes: dict[str, object], message: str) -> None:
    spoil(sorted(series.glob("*.dcm"))[2], **changes)
    with pytest.raises(ValueError, match=message):
        read_volume(series)


def test_a_folder_without_ct(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must hold one CT series in DICOM, got none"):
        read_volume(tmp_path)


def test_conversion_goes_through_all_folders_and_tells_the_bad_ones(tmp_path: Path) -> None:
    for name in ("a", "b/deep"):
        ct_series(tmp_path / "in" / name, HU, SPACING, ORIGIN)
        structure_set(tmp_path / "in" / name / "rs.dcm", {"GTV 1": [square((4, 5), (9, 11), 3)]})
    spoil(next((tmp_path / "in/a").glob("000.dcm")), RescaleSlope=None)
    with pytest.raises(ValueError, match=r"1 problem in [\s\S]*RescaleSlope"):
        convert_dicom(tmp_path / "in", tmp_path / "out", progress=False)
    mask = nib.load(tmp_path / "out/b/deep/structures/GTV_1.nii.gz")
    ct = nib.load(tmp_path / "out/b/deep/ct.nii.gz")
    assert int(mask.get_fdata().sum()) == 6 * 7
    np.testing.assert_allclose(mask.affine, ct.affine)
    np.testing.assert_array_equal(ct.get_fdata(), HU)


def test_real_lung_tumours(sample: Callable[[str], Path]) -> None:
    """The volume of the mask is that of the outlines by the shoelace formula; the tumour is no air."""
    folder = sample(SAMPLE) / "pat_3"
    volume = read_volume(folder)
    structures = find_structure_set(folder)
    assert structures is not None
    mask = read_structures(structures, grid_of(volume))["GTV-1"]
    contours = pydicom.dcmread(structures).ROIContourSequence[0].ContourSequence
    areas = []
    for contour in contours:
        x, y, _ = np.array(contour.ContourData, float).reshape(-1, 3).T
        areas.append(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
    voxel = float(np.prod(volume.pixdim.numpy()))
    assert mask.sum() * voxel == pytest.approx(sum(areas) * float(volume.pixdim[2]), rel=0.03)
    assert np.median(volume[0].numpy()[mask > 0]) > -100
