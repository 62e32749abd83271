"""The hospital layout: labels from a table, folders only on request, pairing of tracers, errors."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from react_kd.convert.hospital import convert_hospital
from react_kd.data import read_datalist

SHAPE = (6, 5, 4)


def _save(path: Path, shape: tuple = SHAPE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.ones(shape, np.int16), np.diag([2.0, 2.0, 3.0, 1.0])), path)


def _patient(root: Path, grade: str, name: str, tracers: tuple[str, ...] = ("FDG", "ACT")) -> None:
    for tracer in tracers:
        folder = root / grade / name / tracer
        for file in ("CT", "CT_liver", "CT_tumor"):
            _save(folder / f"{file}.nii.gz")
        _save(folder / "PET.nii.gz", (3, 3, 4))


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    root = tmp_path / "hospital"
    _patient(root, "well", "p1")
    _patient(root, "poorly", "p2", ("FDG",))
    return root


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text("Patient_ID,label,AFP,sex\np1,poor,12.5,F\np2,1,,M\np9,0,,\n")
    return path


def _training(path: str) -> list[dict]:
    return read_datalist(path).splits["training"]


def test_labels_come_from_the_table_whatever_the_folders_say(
    hospital: Path, table: Path, tmp_path: Path
) -> None:
    cases = _training(
        convert_hospital(str(hospital), str(tmp_path / "out"), table=str(table), progress=False)
    )
    assert [(case["patient_id"], case["label"]) for case in cases] == [("p1", 2), ("p2", 1)]
    assert cases[0]["clinical"] == {"afp": 12.5, "sex": "F"}
    hospital.joinpath("well").rename(hospital / "renamed")
    again = _training(convert_hospital(str(hospital), str(tmp_path / "o2"), table=str(table), progress=False))
    assert [case["label"] for case in again] == [2, 1]


def test_one_case_per_patient_has_both_tracers_on_the_fdg_ct(
    hospital: Path, table: Path, tmp_path: Path
) -> None:
    both, one = _training(
        convert_hospital(str(hospital), str(tmp_path / "out"), table=str(table), progress=False)
    )
    folder = hospital / "well/p1"
    assert both["image"] == str(folder / "FDG/CT.nii.gz")
    assert both["pet_act"] == str(folder / "ACT/PET.nii.gz")
    assert both["mass"] == str(folder / "FDG/CT_tumor.nii.gz")
    assert "pet_act" not in one


def test_one_case_per_scan_keeps_the_patient(hospital: Path, table: Path, tmp_path: Path) -> None:
    path = convert_hospital(
        str(hospital), str(tmp_path / "out"), table=str(table), pairing="scan", progress=False
    )
    cases = _training(path)
    assert [case["scan_id"] for case in cases] == ["p1_FDG", "p1_ACT", "p2_FDG"]
    assert [case["patient_id"] for case in cases] == ["p1", "p1", "p2"]
    assert cases[1]["image"].endswith("ACT/CT.nii.gz")
    assert "pet_fdg" not in cases[1]


def test_grade_folders_are_read_on_request_only(hospital: Path, tmp_path: Path) -> None:
    cases = _training(
        convert_hospital(str(hospital), str(tmp_path / "out"), grade_folders=True, progress=False)
    )
    assert [case["label"] for case in cases] == [0, 2]
    with pytest.raises(ValueError, match="exactly one source"):
        convert_hospital(str(hospital), str(tmp_path / "out"))


def test_an_unknown_grade_folder_is_refused(hospital: Path, tmp_path: Path) -> None:
    (hospital / "well").rename(hospital / "unsure")
    with pytest.raises(ValueError, match="unsure"):
        convert_hospital(str(hospital), str(tmp_path / "out"), grade_folders=True, progress=False)


def test_a_patient_outside_the_table_is_ungraded(hospital: Path, table: Path, tmp_path: Path) -> None:
    table.write_text("patient_id,label\np1,0\n")
    cases = _training(
        convert_hospital(str(hospital), str(tmp_path / "out"), table=str(table), progress=False)
    )
    assert [case.get("label") for case in cases] == [0, None]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("patient_id,label\np1,7\np2,0\n", "patient p1: label must be 0, 1, 2"),
        ("patient_id,grade\np1,1\np2,1\n", "must have a column label"),
        ("patient_id,label\np1,1\np1,2\n", r"repeats \['p1'\]"),
        ("id,label\np1,1\n", "header with a column patient_id"),
    ],
)
def test_a_bad_table_is_refused(
    hospital: Path, table: Path, tmp_path: Path, content: str, message: str
) -> None:
    table.write_text(content)
    with pytest.raises(ValueError, match=message):
        convert_hospital(str(hospital), str(tmp_path / "out"), table=str(table), progress=False)


def test_missing_and_misplaced_files_are_named(hospital: Path, table: Path, tmp_path: Path) -> None:
    (hospital / "well/p1/FDG/PET.nii.gz").unlink()
    _save(hospital / "poorly/p2/FDG/CT_tumor.nii.gz", (6, 5, 3))
    with pytest.raises(ValueError, match="2 cases could not") as caught:
        convert_hospital(str(hospital), str(tmp_path / "out"), table=str(table), progress=False)
    assert "PET.nii.gz must be there" in str(caught.value)
    assert "CT_tumor.nii.gz must lie on the grid" in str(caught.value)


def test_a_patient_in_two_places_is_refused(hospital: Path, table: Path, tmp_path: Path) -> None:
    _patient(hospital, "poorly", "p1")
    with pytest.raises(ValueError, match="patient p1 must be in one place"):
        convert_hospital(str(hospital), str(tmp_path / "out"), table=str(table), progress=False)
