"""LiTS17 and Task03_Liver: layouts, masks, never a grade, resume, errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from react_kd.convert.lits17 import convert_lits17
from react_kd.data import read_datalist

AFFINE = np.diag([-0.7, -0.7, 2.5, 1.0])
SHAPE = (12, 10, 6)


def _save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def _labels(lesion: bool = True) -> np.ndarray:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[2:9, 2:9, 1:5] = 1
    if lesion:
        labels[4:6, 4:6, 2:4] = 2
    return labels


def _pair(root: Path, number: int, batch: str, lesion: bool = True) -> None:
    _save(root / batch / f"volume-{number}.nii", np.full(SHAPE, 50, np.int16))
    _save(root / batch / f"segmentation-{number}.nii", _labels(lesion))


@pytest.fixture
def lits(tmp_path: Path) -> Path:
    root = tmp_path / "lits"
    _pair(root, 0, "Training Batch 1")
    _pair(root, 28, "Training Batch 2")
    _pair(root, 32, "Training Batch 2", lesion=False)
    _save(root / "test" / "test-volume-0.nii", np.zeros(SHAPE, np.int16))
    return root


def test_lits_layout_gives_ungraded_cases_with_both_masks(lits: Path, tmp_path: Path) -> None:
    datalist = read_datalist(convert_lits17(str(lits), str(tmp_path / "out"), progress=False))
    cases = datalist.splits["training"]
    assert [case["scan_id"] for case in cases] == ["lits_000", "lits_028"]
    assert all("label" not in case for case in cases)
    assert cases[1]["image"] == str(lits / "Training Batch 2/volume-28.nii")
    liver, mass = (nib.load(cases[0][key]) for key in ("liver", "mass"))
    np.testing.assert_array_equal(liver.get_fdata(), _labels() > 0)
    np.testing.assert_array_equal(mass.get_fdata(), _labels() == 2)
    np.testing.assert_allclose(mass.affine, AFFINE, atol=1e-6)


def test_scans_without_a_lesion_are_kept_on_request(lits: Path, tmp_path: Path) -> None:
    path = convert_lits17(str(lits), str(tmp_path / "out"), without_lesion="keep", progress=False)
    assert len(read_datalist(path).splits["training"]) == 3


def test_decathlon_layout_has_the_same_ids(tmp_path: Path) -> None:
    root = tmp_path / "Task03_Liver"
    _save(root / "imagesTr/liver_28.nii.gz", np.full(SHAPE, 50, np.int16))
    _save(root / "labelsTr/liver_28.nii.gz", _labels())
    _save(root / "imagesTs/liver_140.nii.gz", np.full(SHAPE, 50, np.int16))
    cases = read_datalist(convert_lits17(str(root), str(tmp_path / "out"), progress=False)).splits["training"]
    assert [case["patient_id"] for case in cases] == ["lits_028"]


def test_finished_cases_are_not_written_again(lits: Path, tmp_path: Path) -> None:
    convert_lits17(str(lits), str(tmp_path / "out"), progress=False)
    files = sorted((tmp_path / "out").rglob("*.nii.gz"))
    times = [path.stat().st_mtime_ns for path in files]
    files[0].unlink()
    convert_lits17(str(lits), str(tmp_path / "out"), progress=False)
    assert files[0].is_file()
    untouched = [
        p.stat().st_mtime_ns == t for p, t in zip(files, times, strict=True) if p.parent != files[0].parent
    ]
    assert all(untouched)


@pytest.mark.parametrize(
    ("labels", "affine", "message"),
    [
        (
            np.full(SHAPE, 3, np.uint8),
            AFFINE,
            r"segmentation-28.nii must hold the values 0, 1 and 2, got \[3\]",
        ),
        (np.zeros((12, 10, 5), np.uint8), AFFINE, "must lie on the grid"),
        (_labels(), np.diag([-0.7, -0.7, 5.0, 1.0]), "must lie on the grid"),
    ],
)
def test_a_bad_scan_is_named_and_the_others_are_kept(
    lits: Path, tmp_path: Path, labels: np.ndarray, affine: np.ndarray, message: str
) -> None:
    _save(lits / "Training Batch 2/segmentation-28.nii", labels, affine)
    with pytest.raises(ValueError, match=message) as caught:
        convert_lits17(str(lits), str(tmp_path / "out"), progress=False)
    assert "1 cases could not be converted" in str(caught.value)
    content = json.loads((tmp_path / "out/datalist.json").read_text())
    assert [case["scan_id"] for case in content["training"]] == ["lits_000"]


def test_a_truncated_file_is_named(lits: Path, tmp_path: Path) -> None:
    (lits / "Training Batch 1/volume-0.nii").write_bytes(b"not nifti")
    with pytest.raises(ValueError, match=r"volume-0\.nii must be a readable NIfTI file"):
        convert_lits17(str(lits), str(tmp_path / "out"), progress=False)


def test_a_folder_of_another_layout_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="neither volume-N"):
        convert_lits17(str(tmp_path / "empty"), str(tmp_path / "out"))
    with pytest.raises(FileNotFoundError, match="existing folder"):
        convert_lits17(str(tmp_path / "nowhere"), str(tmp_path / "out"))
    with pytest.raises(ValueError, match="without_lesion must be one of"):
        convert_lits17(str(tmp_path), str(tmp_path / "out"), without_lesion="maybe")
