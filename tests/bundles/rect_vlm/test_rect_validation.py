"""Bad input: everything that is wrong with a cohort, in one error before training, with file and key."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rect_tiny_ctrate import AFFINE, chest, label_rows, report_rows, save, tiny_ctrate, write_rows
from rect_vlm import validation
from rect_vlm.ctrate import read_ctrate
from rect_vlm.records import Record
from rect_vlm.validation import check_records, read_checked

HU, MASK, _ = chest()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_ctrate(tmp_path_factory.mktemp("ctrate"))


@pytest.fixture
def root(sound: Path, tmp_path: Path, cache: Path) -> Path:
    """A cohort of its own, to be spoiled."""
    return Path(shutil.copytree(sound, tmp_path / "ctrate"))


def complaint(root: Path, **options: object) -> str:
    with pytest.raises(ValueError) as caught:
        read_checked(root, progress=False, **options)  # type: ignore[arg-type]
    return str(caught.value)


def place(root: Path, volume: str) -> Path:
    split, patient, scan = volume.split("_")[:3]
    return root / f"{split}_fixed/{split}_{patient}/{split}_{patient}_{scan}/{volume}.nii.gz"


def test_a_sound_cohort_passes_and_is_remembered(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = read_checked(root, progress=False)
    assert [len(records[split]) for split in ("train", "valid")] == [4, 1]
    calls = []
    monkeypatch.setattr(validation, "file_problems", lambda *a: calls.append(a) or [])
    check_records(records, progress=False)
    assert not calls
    save(place(root, "train_1_a_1"), HU)  # written again: looked at again
    check_records(records, progress=False)
    assert len(calls) == 5


def test_everything_that_is_wrong_is_told_at_once(root: Path) -> None:
    save(place(root, "train_1_a_1"), HU + 1024)  # never rescaled
    nib.save(nib.Nifti1Image(HU[:, :, 3], np.eye(4)), place(root, "train_1_a_2"))  # a picture
    thick = np.diag([0.5, 0.5, 12, 1.0])
    save(place(root, "train_2_a_1"), HU, affine=thick)
    shifted = AFFINE.copy()
    shifted[2, 3] += 8
    save(root / "lesion_masks/lung_nodule/train_3_a_1.nii.gz", MASK, affine=shifted)
    names = [f"train_{rest}" for rest in ("1_a_1", "1_a_2", "2_a_1", "3_a_1")]
    reports = report_rows(names)
    reports[3]["Findings_EN"] = "Not given."
    write_rows(root / "radiology_text_reports/train_reports.csv", reports)
    labels = label_rows(names)
    write_rows(
        root / "multi_abnormality_labels/train_predicted_labels.csv",
        [{**row, "Pneumothorax": 0} for row in labels],
    )
    message = complaint(root)
    for part in (
        "unknown label column 'Pneumothorax'",
        r"train_1_a_1.nii.gz: holds no HU of a chest",
        "rescaled by the metadata 1 * value -1024",
        "train_1_a_2.nii.gz), key image: must be a 3-D volume",
        "train_2_a_1.nii.gz), key image: voxels must measure 0.1 to 12.5 mm",
        "got 0.5 x 0.5 x 12 mm",
        "train_3_a_1.nii.gz), key lesion_masks:",
        "must lie on the grid of its CT, got one that is up to 1.0 voxels away",
        "train_3_a_1.nii.gz), key report: must have findings",
    ):
        assert part in message


def test_missing_slope_and_intercept(root: Path) -> None:
    table = root / "metadata/train_metadata.csv"
    table.write_text(table.read_text().replace("-1024,1,", ",1,", 1))
    message = complaint(root, hu_source="metadata", splits=("train",))
    assert "train_1_a_1.nii.gz), key intercept: raw values need RescaleIntercept of the metadata" in message
    table.unlink()
    message = complaint(root, hu_source="metadata", splits=("train",))
    assert message.count("raw values need Rescale") == 8


def test_corrected_volumes_must_not_be_rescaled_again(root: Path) -> None:
    message = complaint(root, hu_source="metadata")
    assert message.count('without rescaling (hu_source="nifti")') == 5


def test_files_that_are_gone_cut_or_of_another_kind(root: Path) -> None:
    place(root, "train_1_a_1").unlink()
    path = place(root, "train_2_a_1")
    path.write_bytes(path.read_bytes()[:2000])
    shutil.copy(place(root, "train_3_a_1"), root / "ts_seg/ts_total" / place(Path(), "train_3_a_1"))
    message = complaint(root, only_found=False)
    assert "train_1_a_1.nii.gz: no such file" in message
    assert "train_2_a_1.nii.gz: its voxels cannot be read" in message
    assert "key regions: labels must be classes 0 ... 118 of TotalSegmentator's task `total`" in message


def test_tasks_decide_what_is_needed(root: Path) -> None:
    shutil.rmtree(root / "lesion_masks")
    shutil.rmtree(root / "radiology_text_reports")
    (root / "multi_abnormality_labels/train_predicted_labels.csv").unlink()
    assert len(read_checked(root, tasks=(), progress=False)["train"]) == 4
    message = complaint(root)
    assert message.count("the table of labels has no row") == 4
    assert message.count("must have findings") == 5
    assert message.count("localization needs masks, no volume has one") == 2
    with pytest.raises(
        ValueError, match="tasks must be among classification, localization, report, got grpo"
    ):
        check_records({"train": read_ctrate(root)}, tasks=("grpo",))


def test_only_a_part_is_read_to_the_end_of_every_file(root: Path) -> None:
    for name in ("train_1_a_1", "train_1_a_2", "train_2_a_1", "train_3_a_1", "valid_1_a_1"):
        save(place(root, name), HU + 1024)
    assert complaint(root, read_voxels=None).count("holds no HU") == 5
    assert complaint(root, read_voxels=2).count("holds no HU") == 2
    read_checked(root, read_voxels=0, progress=False)


def test_faults_between_records(root: Path) -> None:
    train, valid = read_ctrate(root), read_ctrate(root, "valid")
    window: Record = {**valid[0], "intensity": "uint8_window"}
    leak: Record = {**valid[0], "id": "other", "patient": "train_1"}
    odd: Record = {**train[0], "id": "odd", "labels": [2.0] * 18, "lesion_masks": {"mass": train[0]["image"]}}
    splits = {"train": [*train, train[0], odd], "valid": [window, leak]}
    with pytest.raises(ValueError) as caught:
        check_records(splits, read_voxels=0, progress=False)
    message = str(caught.value)
    for part in (
        "key id: is used twice",
        "key patient: patient train_1 is also in train",
        "key intensity: must be hu as in train_1_a_1, windowed values cannot join HU",
        "key labels: must be 18 values of 0, 1 or -1 (unknown)",
        "key lesion_masks: must be among pericardial_effusion, pleural_effusion",
    ):
        assert part in message
    with pytest.raises(ValueError, match="at least one volume, got none"):
        check_records({"train": []})
