"""The label table of MIMIC-CXR-JPG: codes, order of columns, and which records it reaches."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from kif_case_files import entry, write_annotation
from kif_mrg.annotation import attach_mimic_labels, read_annotation, read_mimic_labels
from kif_mrg.conditions import CONDITIONS, IGNORE
from medbundles.text.labeler import CHEXPERT_CONDITIONS

COLUMNS = sorted(name.replace("_", " ").title() for name in CHEXPERT_CONDITIONS)


def mimic_csv(path: Path, rows: list[dict[str, Any]], columns: list[str] = COLUMNS) -> Path:
    lines = [",".join(["subject_id", "study_id", *columns])]
    lines += [",".join(str(row.get(key, "")) for key in ("subject", "study", *columns)) for row in rows]
    text = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_mimic_table_is_mapped_by_name_and_code(tmp_path: Path) -> None:
    row = {
        "subject": 7,
        "study": 50414267,
        "Edema": 1.0,
        "Atelectasis": "0.0",
        "Pneumonia": -1,
        "Fracture": "nan",
    }
    for suffix in (".csv", ".csv.gz"):
        labels = read_mimic_labels(mimic_csv(tmp_path / f"chexpert{suffix}", [row]))[7, 50414267]
        by_name = dict(zip(CHEXPERT_CONDITIONS, labels, strict=True))
        assert (by_name["edema"], by_name["atelectasis"], by_name["pneumonia"]) == (1, 2, 3)
        assert sum(labels) == 6


def test_mimic_labels_reach_both_forms_of_a_study_and_its_own_patient_only(tmp_path: Path) -> None:
    table = mimic_csv(tmp_path / "t.csv", [{"subject": 10000032, "study": 50414267, "Edema": 1}])
    rows = [entry("a", study_id="s50414267"), entry("b", study_id=50414267, subject_id=10000032),
            entry("c", study_id=50414267, subject_id=10000033), entry("d")]  # fmt: skip
    path = write_annotation(tmp_path, rows, images=False)
    edema = CONDITIONS.index("edema")
    records = read_annotation(path, mimic_labels=table)["test"]
    assert [record["labels"][edema] for record in records] == [1, 1, 0, 0]
    assert records[0]["labels"][14:] == [IGNORE] * 4
    assert attach_mimic_labels(records, read_mimic_labels(table), CONDITIONS) == 2
    with pytest.raises(ValueError, match=r"t2\.csv must hold studies of the annotation"):
        read_annotation(path, mimic_labels=mimic_csv(tmp_path / "t2.csv", [{"subject": 1, "study": 2}]))


def test_mimic_table_errors_name_file_line_and_column(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"t\.csv must have the columns .*, lacks edema$"):
        read_mimic_labels(mimic_csv(tmp_path / "t.csv", [], [name for name in COLUMNS if name != "Edema"]))
    with pytest.raises(ValueError, match=r"t\.csv, line 3: .* got '2'"):
        read_mimic_labels(
            mimic_csv(
                tmp_path / "t.csv", [{"subject": 1, "study": 2}, {"subject": 1, "study": 3, "Edema": 2}]
            )
        )
