"""HCC-TACE-Seg: the SEG chooses the CT, masks by label, grades from the sheet, errors by patient."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from react_kd.convert.hcc_tace_seg import convert_hcc_tace_seg, grade_from_pathology
from react_kd.data import read_datalist

pytest.importorskip("highdicom", reason="needs the extra dicomseg")
import react_dicom_files as files

PATHOLOGY = {
    "HCC_001": "Poorly differentiated",
    "HCC_002": "Well-moderately differentiated",
    "HCC_003": "NOT STATED",
}


def _sheet(path: Path, rows: dict[str, str] = PATHOLOGY) -> str:
    import openpyxl

    book = openpyxl.Workbook()
    book.active.title = "README"
    book.active.append(["about this table"])
    sheet = book.create_sheet("data table")
    sheet.append(["Clinical data"])
    sheet.append(["TCIA_ID", "Sex", "age", "hepatitis", "AFP", "Pathology"])
    for name, pathology in rows.items():
        sheet.append([name, 1, 61, "No virus", 12.5, pathology])
    book.save(path)
    return str(path)


@pytest.fixture
def tcia(tmp_path: Path) -> Path:
    root = tmp_path / "manifest/HCC-TACE-Seg"
    for name in PATHOLOGY:
        files.patient(root / name)
    return root.parent


def _convert(root: Path, tmp_path: Path, **options: str) -> str:
    return convert_hcc_tace_seg(
        str(root), str(tmp_path / "out"), _sheet(tmp_path / "c.xlsx"), progress=False, **options
    )


def test_round_trip_of_an_overlapping_segmentation(tcia: Path, tmp_path: Path) -> None:
    (case,) = read_datalist(_convert(tcia, tmp_path)).splits["test"]
    assert (case["scan_id"], case["label"]) == ("HCC_001", 2)
    assert case["clinical"] == {"afp": 12.5, "age": 61.0, "sex": 1.0, "hepatitis": "No virus"}
    image, liver, mass = (nib.load(case[key]) for key in ("image", "liver", "mass"))
    expected = {name: mask.transpose(2, 1, 0) for name, mask in files.segments().items()}
    vessels = expected["Portal vein"] | expected["Abdominal aorta"]
    np.testing.assert_array_equal(image.get_fdata(), files.ct_array(1).transpose(2, 1, 0))
    np.testing.assert_array_equal(mass.get_fdata(), expected["Mass"])
    np.testing.assert_array_equal(liver.get_fdata(), (expected["Liver"] & ~vessels) | expected["Mass"])
    affine = np.diag([-files.SPACING[2], -files.SPACING[1], files.SPACING[0], 1.0])
    affine[:3, 3] = [-files.ORIGIN[0], -files.ORIGIN[1], files.ORIGIN[2]]  # LPS to RAS
    for volume in (image, liver, mass):
        np.testing.assert_allclose(volume.affine, affine, atol=1e-4)


def test_of_two_stacked_phases_the_referenced_one_is_read(tmp_path: Path) -> None:
    hu = files.patient(tmp_path / "tcia/HCC_001", stacked=True)
    (case,) = read_datalist(_convert(tmp_path / "tcia", tmp_path)).splits["test"]
    np.testing.assert_array_equal(nib.load(case["image"]).get_fdata(), hu.transpose(2, 1, 0))


def test_mixed_grades_and_ungraded_patients_follow_the_options(tcia: Path, tmp_path: Path) -> None:
    path = _convert(tcia, tmp_path, mixed_grade="worst", ungraded="keep")
    cases = read_datalist(path).splits["test"]
    assert [case.get("label") for case in cases] == [2, 1, None]
    counts = json.loads(Path(path).read_text())["counts"]
    assert counts["grade"] == {"poor": 1, "moderate": 1, "ungraded": 1}
    assert counts["pathology"]["NOT STATED"] == 1


@pytest.mark.parametrize(
    ("text", "drop", "worst"),
    [
        ("Well differentiated", 0, 0),
        (" moderately  differentiated", 1, 1),
        ("Poorly differentiated", 2, 2),
        ("Well-moderately differentiated", None, 1),
        ("Moderately - poorly differentiated", None, 2),
        ("NOT STATED", None, None),
        ("No biopsy", None, None),
        ("", None, None),
    ],
)
def test_every_known_pathology(text: str, drop: int | None, worst: int | None) -> None:
    assert grade_from_pathology(text, "drop") == drop
    assert grade_from_pathology(text, "worst") == worst


def test_an_unknown_pathology_is_refused_with_the_patient(tcia: Path, tmp_path: Path) -> None:
    sheet = _sheet(tmp_path / "c.xlsx", {"HCC_001": "undifferentiated?"})
    with pytest.raises(ValueError, match="patient HCC_001: Pathology must be one of"):
        convert_hcc_tace_seg(str(tcia), str(tmp_path / "out"), sheet, progress=False)


def test_finished_patients_are_not_read_again(tcia: Path, tmp_path: Path) -> None:
    _convert(tcia, tmp_path)
    for path in (tcia / "HCC-TACE-Seg/HCC_001").rglob("*.dcm"):
        path.unlink()
    assert len(read_datalist(_convert(tcia, tmp_path)).splits["test"]) == 1


def test_bad_patients_are_named_and_the_others_kept(tcia: Path, tmp_path: Path) -> None:
    (tcia / "HCC-TACE-Seg/HCC_002/study/seg/1.dcm").unlink()
    sorted((tcia / "HCC-TACE-Seg/HCC_003/study/portal").iterdir())[4].unlink()
    with pytest.raises(ValueError, match="2 cases could not") as caught:
        _convert(tcia, tmp_path, mixed_grade="worst", ungraded="keep")
    assert "HCC_002 must hold one DICOM SEG, found none" in str(caught.value)
    assert "slices must be 2.500 mm apart" in str(caught.value)
    content = json.loads((tmp_path / "out/datalist.json").read_text())
    assert [case["scan_id"] for case in content["test"]] == ["HCC_001"]


def test_a_segmentation_without_a_mass_is_named(tmp_path: Path) -> None:
    masks = {name: mask for name, mask in files.segments().items() if name != "Mass"}
    files.patient(tmp_path / "tcia/HCC_001", masks)
    with pytest.raises(ValueError, match=r"missing or empty \['mass'\]"):
        _convert(tmp_path / "tcia", tmp_path)


def test_a_missing_ct_series_is_named(tmp_path: Path) -> None:
    files.patient(tmp_path / "tcia/HCC_001")
    for path in (tmp_path / "tcia/HCC_001").rglob("*.dcm"):
        if path.parent.name != "seg":
            path.unlink()
    with pytest.raises(ValueError, match="that the segmentation refers to is not there"):
        _convert(tmp_path / "tcia", tmp_path)


def test_wrong_sources_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tcia").mkdir()
    with pytest.raises(FileNotFoundError, match="HCC_001"):
        _convert(tmp_path / "tcia", tmp_path)
    files.patient(tmp_path / "tcia/HCC_001")
    with pytest.raises(FileNotFoundError, match="clinical table not found"):
        convert_hcc_tace_seg(str(tmp_path / "tcia"), str(tmp_path / "out"), str(tmp_path / "no.csv"))


def test_a_real_dicom_series_equals_what_monai_reads(sample) -> None:
    from monai.transforms import LoadImage
    from react_kd.convert.dicom_series import (
        LPS_TO_RAS,
        index_folder,
        read_hu,
        referenced_series,
        slice_affine,
    )

    instances = index_folder(sample("lung_ct_rtstruct") / "pat_1")
    ct = next(i for i in instances if i.modality == "CT")
    series = referenced_series(instances, {ct.sop_uid}, "")
    assert {i.modality for i in instances} == {"CT", "RTSTRUCT"}
    expected = LoadImage(reader="ITKReader", image_only=True)(ct.path.parent)
    np.testing.assert_array_equal(read_hu(series), expected.numpy())
    np.testing.assert_allclose(LPS_TO_RAS @ slice_affine(series), expected.affine, atol=1e-3)
