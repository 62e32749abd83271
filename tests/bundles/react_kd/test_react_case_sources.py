"""Folders, datalists and single images become cases; what is ambiguous is an error that names the files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from react_case_files import SHAPE, save, write_case, write_dicom
from react_kd.inference import cases_from

VOLUME = np.zeros(SHAPE, dtype=np.int16)


def test_folders_of_cases_images_and_series_are_recognised(tmp_path: Path) -> None:
    write_case(tmp_path / "hospital", "p1")
    save(tmp_path / "hospital" / "p2" / "ct.nii.gz", VOLUME)
    save(tmp_path / "hospital" / "p2" / "liver.nii", VOLUME)
    save(tmp_path / "loose.nii.gz", VOLUME)
    write_dicom(tmp_path / "series", VOLUME)
    write_dicom(tmp_path / "p3" / "ct", VOLUME)
    save(tmp_path / "p3" / "mass.nii.gz", VOLUME)
    (tmp_path / "notes.txt").write_text("not an image")
    found = {case["scan_id"]: set(case) - {"scan_id", "patient_id"} for case in cases_from(tmp_path)}
    everything = {"image", "pet_fdg", "pet_act", "liver", "mass"}
    assert found == {
        "hospital_p1": everything,
        "hospital_p2": {"image", "liver"},
        "loose": {"image"},
        "p3": {"image", "mass"},
        "series": {"image"},
    }


def test_a_case_folder_a_series_and_a_file_are_cases_by_themselves(tmp_path: Path) -> None:
    case = write_case(tmp_path, "p1")
    files = {key: value for key, value in case.items() if key not in ("label", "patient_id")}
    assert cases_from(tmp_path / "p1") == [{**files, "patient_id": "p1", "scan_id": "p1"}]
    assert cases_from(case["image"]) == [{"patient_id": "p1", "scan_id": "p1", "image": case["image"]}]
    series = write_dicom(tmp_path / "scan7", VOLUME)
    assert cases_from(series) == [{"patient_id": "scan7", "scan_id": "scan7", "image": series}]


def test_written_predictions_are_no_input(tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", VOLUME)
    save(tmp_path / "out" / "a" / "gradcam.nii.gz", VOLUME)
    (tmp_path / "out" / "a" / "prediction.json").write_text("{}")
    assert [case["scan_id"] for case in cases_from(tmp_path)] == ["a"]


def test_a_datalist_gives_its_test_cases_or_all_or_the_split_asked_for(tmp_path: Path) -> None:
    rows = {split: write_case(tmp_path, split) for split in ("training", "test")}
    (tmp_path / "datalist.json").write_text(json.dumps({split: [row] for split, row in rows.items()}))
    with (tmp_path / "list.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, [*rows["test"], "split"])
        table.writeheader()
        table.writerows({**row, "split": split} for split, row in rows.items())
    for source in (tmp_path, tmp_path / "datalist.json", tmp_path / "list.csv"):
        assert [case["scan_id"] for case in cases_from(source)] == ["test"]
        assert [case["scan_id"] for case in cases_from(source, "all")] == ["training", "test"]
    (tmp_path / "other.json").write_text(json.dumps({"training": [rows["training"]]}))
    assert [case["scan_id"] for case in cases_from(tmp_path / "other.json")] == ["training"]
    with pytest.raises(ValueError, match=r"split must be one of .* got 'test'"):
        cases_from(tmp_path / "other.json", "test")


def test_an_unknown_name_in_a_case_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "p1" / "ct.nii.gz", VOLUME)
    save(tmp_path / "p1" / "tumor.nii.gz", VOLUME)
    (case,) = cases_from(tmp_path)
    assert set(case) == {"scan_id", "patient_id", "image"}
    assert "tumor.nii.gz is not used" in caplog.text
    assert "mass" in caplog.text


def test_ambiguous_and_empty_sources_are_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"got .*nowhere: no such file"):
        cases_from(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"must hold NIfTI files or DICOM series, .*empty has none"):
        cases_from(tmp_path / "empty")
    (tmp_path / "table.xlsx").touch()
    with pytest.raises(ValueError, match=r"got .*table\.xlsx"):
        cases_from(tmp_path / "table.xlsx")
    save(tmp_path / "twice" / "ct.nii.gz", VOLUME)
    save(tmp_path / "twice" / "image.nii.gz", VOLUME)
    with pytest.raises(ValueError, match=r"key image: a case must have one image, got .*ct\.nii.*image\.nii"):
        cases_from(tmp_path / "twice")
    save(tmp_path / "same" / "a.nii", VOLUME)
    save(tmp_path / "same" / "a.nii.gz", VOLUME)
    with pytest.raises(ValueError, match=r"a\.nii and .*a\.nii\.gz would both be case a"):
        cases_from(tmp_path / "same")
