"""The simulated chest-CT cohort: CT-RATE's folders and tables, resumable, the same wherever it is made."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations
from rect_vlm import phantom
from rect_vlm.ctrate import read_ctrate
from rect_vlm.findings import FINDINGS, LESIONS
from rect_vlm.hu import measure_hu
from rect_vlm.phantom import Case, case_facts, case_report, case_scan, ensure, simulated_cohort
from rect_vlm.phantom_facts import fact_labels
from rect_vlm.phantom_tables import METADATA_COLUMNS, table_path

FEW = {"train": 3, "valid": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three training scans, the second with two reconstructions and no masks, and a validation scan."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom, "SECOND_EVERY", 3)
        patch.setattr(phantom, "UNOUTLINED_EVERY", 2)
        folder = Path(simulated_cohort(7, **FEW, folder=tmp_path_factory.mktemp("made") / "cohort"))
        ensure(folder, progress=False)
    return folder


def rows(folder: Path, table: str, split: str) -> list[dict[str, str]]:
    with table_path(folder, table, split).open(newline="") as stream:
        return list(csv.DictReader(stream))


def to_spl(image: nib.Nifti1Image) -> np.ndarray:
    stored = orientations.io_orientation(image.affine)
    turn = orientations.ornt_transform(stored, orientations.axcodes2ornt("SPL"))
    return np.asarray(image.as_reoriented(turn).dataobj)


def test_reader_of_ct_rate_finds_volumes_labels_reports_and_masks(made: Path) -> None:
    train, valid = read_ctrate(made, "train"), read_ctrate(made, "valid")
    assert [record["id"] for record in train] == ["train_1_a_1", "train_2_a_1", "train_2_a_2", "train_3_a_1"]
    assert [record["id"] for record in valid] == ["valid_1_a_1"]
    for record in (*train, *valid):
        split, number = record["split"], int(record["patient"].split("_")[1]) - 1
        case = Case(split, number, 1)
        findings, impression = case_report(7, case)
        assert record["report"] == f"FINDINGS:\n{findings}\n\nIMPRESSION:\n{impression}"
        assert record["labels"] == fact_labels(case_facts(7, case))
        assert record["hu_source"] == "nifti"
        assert Path(record["image"]).is_file()
        assert Path(str(record["regions"])).is_file()
        outlined = record["scan"] != "train_2_a"
        assert set(record["lesion_masks"]) == (set(LESIONS) if outlined else set())


def test_files_hold_the_drawn_volume_in_varied_orientations(made: Path) -> None:
    axes = set()
    for case in (Case("train", 0, 1), Case("train", 1, 2), Case("train", 2, 1), Case("valid", 0, 1)):
        scan = case_scan(7, case)
        image = nib.nifti1.Nifti1Image.from_filename(made / case.place)
        axes.add(nib.aff2axcodes(image.affine))
        assert image.get_data_dtype() == np.int16
        assert np.array_equal(to_spl(image), scan.hu)
        assert measure_hu(scan.hu).plausible
        structures = nib.nifti1.Nifti1Image.from_filename(made / "ts_seg" / "ts_total" / case.place)
        assert np.array_equal(to_spl(structures), scan.structures)
        assert np.allclose(structures.affine, image.affine)
        if case.number != 1:
            for lesion, mask in scan.lesions.items():
                stored = nib.nifti1.Nifti1Image.from_filename(
                    made / "lesion_masks" / lesion / f"{case.volume}.nii.gz"
                )
                assert np.array_equal(to_spl(stored) > 0, mask)
                assert np.allclose(stored.affine, image.affine)
    assert axes == {("L", "P", "S"), ("R", "A", "S")}


def test_tables_have_the_names_and_columns_of_ct_rate(made: Path) -> None:
    assert (made / "radiology_text_reports" / "validation_reports.csv").is_file()
    assert (made / "multi_abnormality_labels" / "valid_predicted_labels.csv").is_file()
    assert list(rows(made, "labels", "train")[0]) == ["VolumeName", *FINDINGS]
    assert len(METADATA_COLUMNS) == len(set(METADATA_COLUMNS)) == 44
    for row in rows(made, "metadata", "train"):
        assert tuple(row) == METADATA_COLUMNS
        volume = row["VolumeName"].removesuffix(".nii.gz")
        patient, scan = volume.rsplit("_", 2)[0], volume.rsplit("_", 1)[0]
        image = nib.nifti1.Nifti1Image.from_filename(
            made / "train_fixed" / patient / scan / f"{volume}.nii.gz"
        )
        mm = dict(zip(nib.aff2axcodes(image.affine), image.header.get_zooms(), strict=True))
        assert float(row["ZSpacing"]) == pytest.approx(mm["S"], abs=1e-4)
        assert json.loads(row["XYSpacing"])[0] == pytest.approx(mm.get("L", mm.get("R")), abs=1e-4)


def test_case_does_not_depend_on_how_many_there_are(made: Path, tmp_path: Path) -> None:
    other = Path(simulated_cohort(7, train=1, valid=2, folder=tmp_path / "other"))
    assert rows(other, "reports", "train") == rows(made, "reports", "train")[:1]
    assert rows(other, "labels", "valid")[:1] == rows(made, "labels", "valid")
    reports = [[case_report(seed, Case("train", k, 1)) for k in range(9)] for seed in (0, 0, 1)]
    assert reports[0] == reports[1] != reports[2]


def test_missing_volume_is_made_again_to_the_same_byte_and_the_others_stay(
    made: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "again"
    shutil.copytree(made, folder)
    gone = folder / Case("train", 2, 1).place
    before = gone.read_bytes()
    stay = [path for path in (folder / "train_fixed").rglob("*.nii.gz") if path != gone]
    written = [path.stat().st_mtime_ns for path in stay]
    gone.unlink()
    mask = folder / "lesion_masks" / "lung_nodule" / "train_3_a_1.nii.gz"
    mask.unlink()
    ensure(folder, progress=False)
    assert gone.read_bytes() == before
    assert mask.is_file()
    assert [path.stat().st_mtime_ns for path in stay] == written


def test_reconstructions_are_of_one_patient_and_two_scanners() -> None:
    first, second = (case_scan(7, Case("train", 1, k)) for k in (1, 2))
    assert not np.array_equal(first.affine, second.affine)
    litres = [
        (s.structures == 51).sum() * abs(np.linalg.det(s.affine[:3, :3])) / 1e6 for s in (first, second)
    ]
    assert litres[0] == pytest.approx(litres[1], rel=0.05)


def test_cohort_in_the_cache_is_named_by_what_it_depends_on(cache: Path) -> None:
    folders = {simulated_cohort(seed, train, 1) for seed in (0, 1) for train in (1, 2)}
    assert len(folders) == 4
    assert simulated_cohort(1, 2, 1) in folders
    assert all(Path(folder).is_relative_to(cache / "rect_vlm") for folder in folders)


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    ensure(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "scan.nii.gz").touch()
    with pytest.raises(ValueError, match="needs an empty folder"):
        simulated_cohort(0, 1, 1, tmp_path)
    folder = simulated_cohort(0, 1, 1, tmp_path / "mine")
    with pytest.raises(ValueError, match="other seed, train"):
        simulated_cohort(1, 2, 1, folder)
    with pytest.raises(ValueError, match="0 or more scans, got -1 and 1"):
        simulated_cohort(0, -1, 1)
