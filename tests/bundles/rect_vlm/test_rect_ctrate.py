"""Reading CT-RATE's layout: names, tables in any column order, every fault of the tables at once."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from rect_tiny_ctrate import REPORT, VOLUMES, label_rows, metadata_rows, report_rows, tiny_ctrate, write_rows
from rect_vlm.ctrate import parse_volume, read_ctrate, volume_place
from rect_vlm.findings import FINDINGS
from rect_vlm.records import first_reconstructions, hold_out, prevalence

# The header of the published label tables.
PUBLISHED = (
    "Medical material,Arterial wall calcification,Cardiomegaly,Pericardial effusion,"
    "Coronary artery wall calcification,Hiatal hernia,Lymphadenopathy,Emphysema,Atelectasis,Lung nodule,"
    "Lung opacity,Pulmonary fibrotic sequela,Pleural effusion,Mosaic attenuation pattern,"
    "Peribronchial thickening,Consolidation,Bronchiectasis,Interlobular septal thickening"
)
TRAIN = [name for name in VOLUMES if name.startswith("train")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_ctrate(tmp_path_factory.mktemp("ctrate"))


def tables(root: Path) -> Path:
    """Tables of the training split alone, to be spoiled; no volume."""
    write_rows(root / "multi_abnormality_labels/train_predicted_labels.csv", label_rows(TRAIN))
    write_rows(root / "radiology_text_reports/train_reports.csv", report_rows(TRAIN))
    write_rows(root / "metadata/train_metadata.csv", metadata_rows(TRAIN))
    return root


def test_findings_are_in_the_order_of_the_published_tables() -> None:
    assert list(FINDINGS) == PUBLISHED.split(",")


def test_names() -> None:
    assert parse_volume("valid_12_b_3.nii.gz") == ("valid", "valid_12", "valid_12_b", 3)
    assert volume_place("train_1_a_2") == "train_1/train_1_a/train_1_a_2.nii.gz"
    with pytest.raises(ValueError, match=r"named like train_1_a_1\.nii\.gz, got 'scan7\.nii\.gz'"):
        parse_volume("scan7.nii.gz")


def test_a_record_has_everything_of_its_volume(root: Path) -> None:
    records = read_ctrate(root)
    assert [record["id"] for record in records] == TRAIN
    first, second = records[:2]
    assert (first["scan"], first["patient"], first["split"]) == ("train_1_a", "train_1", "train")
    assert Path(first["image"]) == root / "train_fixed/train_1/train_1_a/train_1_a_1.nii.gz"
    assert (first["hu_source"], first["slope"], first["intercept"]) == ("nifti", 1, -1024)
    assert first["spacing"] is None  # the header of the corrected release is right
    assert first["report"] == f"FINDINGS:\n{REPORT[0]}\n\nIMPRESSION:\n{REPORT[1]}"
    assert list(first["lesion_masks"]) == ["lung_nodule"]
    assert not second["lesion_masks"]
    assert second["regions"] == str(root / "ts_seg/ts_total/train_fixed/train_1/train_1_a/train_1_a_2.nii.gz")


def test_shuffled_columns_give_the_canonical_order(root: Path) -> None:
    with (root / "multi_abnormality_labels/train_predicted_labels.csv").open() as stream:
        assert next(csv.reader(stream))[1:] != list(FINDINGS)
    labels = {record["id"]: record["labels"] for record in read_ctrate(root)}
    nodule, effusion = FINDINGS.index("Lung nodule"), FINDINGS.index("Pleural effusion")
    assert labels["train_1_a_1"] == [float(i == nodule) for i in range(18)]
    assert labels["train_2_a_1"] == [float(i in (nodule, effusion)) for i in range(18)]


def test_evaluation_takes_the_first_reconstruction_of_every_scan(root: Path) -> None:
    assert [record["id"] for record in read_ctrate(root, "valid")] == ["valid_1_a_1"]
    assert len(read_ctrate(root, "valid", reconstructions="all")) == 2
    assert len(first_reconstructions(read_ctrate(root))) == 3


def test_lists_choose_volumes_scans_and_patients(root: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("train_1_a\ntrain_2\n")
    assert [r["id"] for r in read_ctrate(root, include=listed)] == TRAIN[:3]
    assert [r["id"] for r in read_ctrate(root, exclude=["train_1_a_2.nii.gz", "train_3"])] == [
        TRAIN[0],
        TRAIN[2],
    ]


def test_volumes_without_a_chest_are_left_out(tmp_path: Path) -> None:
    root = tables(tmp_path)
    (root / "metadata/no_chest_train.txt").write_text("train_2_a_1.nii.gz\n")
    assert [r["id"] for r in read_ctrate(root, only_found=False)] == [TRAIN[0], TRAIN[1], TRAIN[3]]


def test_volumes_that_are_not_on_the_disk_are_left_out_on_request(tmp_path: Path) -> None:
    root = tables(tmp_path)
    assert len(read_ctrate(root, only_found=False)) == len(TRAIN)
    with pytest.raises(ValueError, match="train_fixed must hold volumes such as"):
        read_ctrate(root)


def test_the_first_release_is_rescaled_and_measured_by_its_metadata(tmp_path: Path) -> None:
    root = tables(tmp_path)
    (root / "train").mkdir()
    record = read_ctrate(root, only_found=False)[0]
    assert (record["hu_source"], record["spacing"]) == ("metadata", (8.0, 8.0, 8.0))
    assert Path(record["image"]) == root / "train/train_1/train_1_a/train_1_a_1.nii.gz"


def test_renamed_unknown_and_damaged_cells_are_told_at_once(tmp_path: Path) -> None:
    root = tables(tmp_path)
    columns = ["Pneumothorax" if name == "Cardiomegaly" else name for name in FINDINGS]
    write_rows(root / "multi_abnormality_labels/train_predicted_labels.csv", label_rows(TRAIN, columns))
    metadata = metadata_rows(TRAIN)
    metadata[1]["XYSpacing"] = "[0.7]"
    write_rows(root / "metadata/train_metadata.csv", metadata)
    reports = [
        {k.replace("Findings_EN", "Findings"): v for k, v in row.items()} for row in report_rows(TRAIN)
    ]
    write_rows(root / "radiology_text_reports/train_reports.csv", reports)
    with pytest.raises(ValueError) as caught:
        read_ctrate(root, only_found=False)
    message = str(caught.value)
    assert "4 problems" in message
    assert "train_predicted_labels.csv: column 'Cardiomegaly' is missing" in message
    assert "unknown label column 'Pneumothorax'" in message
    assert "train_reports.csv: column 'Findings_EN' is missing, nearest is 'Findings'" in message
    assert "train_metadata.csv, line 3, column XYSpacing: must be 2 numbers, got '[0.7]'" in message


def test_a_cell_that_is_no_label_is_told_with_line_and_column(tmp_path: Path) -> None:
    rows = label_rows(TRAIN)
    rows[2]["Emphysema"] = "maybe"
    rows[3]["Emphysema"] = ""
    path = write_rows(tables(tmp_path) / "multi_abnormality_labels/train_predicted_labels.csv", rows)
    with pytest.raises(ValueError, match="line 4, column Emphysema: must be 0, 1 or empty, got 'maybe'"):
        read_ctrate(tmp_path, only_found=False)
    rows[2]["Emphysema"] = "1.0"
    write_rows(path, rows)
    labels = [record["labels"] or [] for record in read_ctrate(tmp_path, only_found=False)]
    assert [row[FINDINGS.index("Emphysema")] for row in labels] == [0, 0, 1, -1]


def test_a_report_without_findings_is_none(tmp_path: Path) -> None:
    root, rows = tables(tmp_path), report_rows(TRAIN)
    rows[0]["Findings_EN"] = "Not given."
    rows[1]["Impressions_EN"] = " Not given. "
    write_rows(root / "radiology_text_reports/train_reports.csv", rows)
    reports = [record["report"] for record in read_ctrate(root, only_found=False)]
    assert reports[:2] == ["", f"FINDINGS:\n{REPORT[0]}"]


def test_hold_out_is_by_patient_and_prevalence_by_scan(root: Path) -> None:
    records = read_ctrate(root)
    rest, held = hold_out(records, 0.34, seed=1)
    assert len({r["patient"] for r in held}) == 1
    assert not {r["patient"] for r in rest} & {r["patient"] for r in held}
    shares = prevalence(records)
    assert shares[FINDINGS.index("Lung nodule")] == 1
    assert shares[FINDINGS.index("Pleural effusion")] == pytest.approx(1 / 3)
    assert prevalence([{**records[0], "labels": None}]).tolist() == [0.5] * 18


def test_wrong_options(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split must be one of train, valid, got 'test'"):
        read_ctrate(root, "test")
    with pytest.raises(ValueError, match="hu_source must be one of auto, nifti, metadata, got 'dicom'"):
        read_ctrate(root, hu_source="dicom")
    with pytest.raises(FileNotFoundError, match="folder in CT-RATE's layout"):
        read_ctrate(tmp_path / "nowhere")
