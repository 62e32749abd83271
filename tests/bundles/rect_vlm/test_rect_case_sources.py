"""Where CTs come from: single files, folders, DICOM, datalists, cohorts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rect_dicom_files import ct_series
from rect_tiny_ctrate import REPORT, SPACING, chest, tiny_ctrate
from rect_vlm import phantom
from rect_vlm.case_sources import cases_from
from rect_vlm.findings import FINDINGS


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def ids(source: Path, **options: object) -> list[str]:
    return [case["id"] for case in cases_from(source, **options)]


def test_a_folder_is_searched_and_ids_are_paths(tmp_path) -> None:
    names = ("b.nii.gz", "a.NRRD", "p/ct.nii.gz", "p/mask.nii.gz", "p/q/x.npz", ".hidden/z.nii", "notes.txt")
    touch(tmp_path, *names, "done/lesions.nii.gz", "done/prediction.json")
    cases = {case["id"]: case for case in cases_from(tmp_path)}
    assert list(cases) == ["a", "b", "p_ct", "p_q_x"]
    assert cases["p_ct"]["regions"] == str(tmp_path / "p" / "mask.nii.gz")
    assert [case["intensity"] for case in cases.values()] == ["hu", "hu", "hu", "uint8_window"]
    assert "regions" not in cases["b"]


def test_a_label_map_beside_two_cts_is_nobodys(tmp_path) -> None:
    touch(tmp_path, "a.nii.gz", "b.nii.gz", "segmentation.nii.gz")
    assert [case.get("regions") for case in cases_from(tmp_path)] == [None, None]


def test_a_dicom_folder_is_one_ct(tmp_path) -> None:
    hu = chest()[0][:8, :8, :9]
    for name in ("one", "two"):
        ct_series(tmp_path / name, hu, (SPACING,) * 3, np.zeros(3))
    assert ids(tmp_path) == ["one", "two"]
    case = cases_from(tmp_path / "one", segmentation=tmp_path / "lobes.nii.gz")[0]
    assert case == {
        "id": "one",
        "image": str(tmp_path / "one"),
        "regions": str(tmp_path / "lobes.nii.gz"),
        "intensity": "hu",
    }


def test_a_datalist_may_have_splits_and_facts(tmp_path) -> None:
    listed = {"training": [{"image": "t.nii.gz"}], "test": [{"image": "sub/a.nii.gz", "report": "Clear."}]}
    listed["test"] += [{"image": str(tmp_path / "b.npz"), "id": "bee", "regions": "r.nii.gz"}]
    (tmp_path / "datalist.json").write_text(json.dumps({"name": "x", **listed}))
    first, second = cases_from(tmp_path)
    assert (first["id"], first["image"], first["report"]) == ("a", str(tmp_path / "sub/a.nii.gz"), "Clear.")
    assert (second["id"], second["regions"]) == ("bee", str(tmp_path / "r.nii.gz"))
    assert (first["intensity"], second["intensity"]) == ("hu", "uint8_window")
    assert ids(tmp_path / "datalist.json", split="all") == ["t", "a", "bee"]
    assert ids(tmp_path, split="training") == ["t"]
    with pytest.raises(ValueError, match=r"entries of split 'tset', it has \['training', 'test'\]"):
        cases_from(tmp_path, split="tset")


def test_a_cohort_gives_scans_with_lobes_labels_and_reports(tmp_path) -> None:
    tiny_ctrate(tmp_path)
    (case,) = cases_from(tmp_path)
    assert case["id"] == "valid_1_a_1"
    assert case["labels"][FINDINGS.index("Lung nodule")] == 1
    assert REPORT[0] in case["report"]
    assert case["regions"].endswith("valid_1_a_1.nii.gz")
    assert "lesion_masks" not in case
    assert ids(tmp_path, split="train") == ["train_1_a_1", "train_2_a_1", "train_3_a_1"]


def test_a_simulated_cohort_is_listed_before_it_is_made(tmp_path) -> None:
    folder = phantom.simulated_cohort(train=1, valid=3, folder=tmp_path / "cohort")
    cases = cases_from(folder)
    assert len(cases) == 3
    assert not any(Path(case["image"]).exists() for case in cases)


def test_faults_are_named(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.json").write_text('[{"image": 3}]')
    (tmp_path / "text.json").write_text("{")
    touch(tmp_path / "two", "a.nii.gz", "b.nii.gz", "c_a.nii.gz", "c/a.nii.gz")
    touch(tmp_path, "scan.txt")
    for source, options, message in (
        ("none", {}, "no such file"),
        ("empty", {}, "holds none"),
        ("scan.txt", {}, r"got .*scan\.txt"),
        ("list.json", {}, r"list\.json: entry\[0\]: key image must be a path"),
        ("text.json", {}, "must be JSON"),
        ("two", {}, "would both be case c_a, rename one"),
        ("two", {"segmentation": "x.nii.gz"}, "belongs to a single CT, .* has 4"),
        ("two/a.nii.gz", {"intensity": "window"}, "intensity must be auto or one of"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            cases_from(tmp_path / source, **options)
