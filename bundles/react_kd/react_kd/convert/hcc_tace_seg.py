"""HCC-TACE-Seg (TCIA) to a datalist: DICOM CT and DICOM SEG per patient, grades from the clinical sheet.

The SEG holds overlapping segments Liver, Mass, Portal vein, Abdominal aorta, drawn on one CT series of the
pre-treatment study (Moawad et al., TCIA 2021, doi 10.7937/TCIA.5FNA-0924). It decides which CT is read.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from functools import partial
from pathlib import Path

from numpy.typing import NDArray

from react_kd.cases import CLASSES
from react_kd.convert.common import (
    Case,
    check_choice,
    convert_each,
    save_volume,
    source_folder,
    stop_if_failed,
    write_datalist,
)
from react_kd.convert.dicom_seg import liver_and_mass, read_segments, references
from react_kd.convert.dicom_series import LPS_TO_RAS, index_folder, read_hu, referenced_series, slice_affine
from react_kd.convert.sheet import Row, clinical_values, read_rows

logger = logging.getLogger(__name__)
PLAIN_GRADES = {"well differentiated": 0, "moderately differentiated": 1, "poorly differentiated": 2}
# A pathology between two grades counts as the worse one.
MIXED_GRADES = {"well-moderately differentiated": 1, "moderately-poorly differentiated": 2}
NO_GRADE = {"", "not stated", "no biopsy"}
FILES = {"image": "ct", "liver": "liver", "mass": "mass"}


def convert_hcc_tace_seg(
    source: str,
    output: str,
    clinical: str,
    mixed_grade: str = "drop",
    ungraded: str = "drop",
    split: str = "test",
    progress: bool = True,
) -> str:
    """HCC-TACE-Seg to NIfTI (CT, liver, mass) and `output`/datalist.json; return the datalist's path.

    Args:
        source: folder with `HCC_001` ... (or one level above them), DICOM files below in any arrangement.
        output: folder to write; finished patients are skipped when run again.
        clinical: the clinical sheet (xlsx or csv) with columns TCIA_ID and Pathology.
        mixed_grade: "drop" or "worst", for a pathology between two grades.
        ungraded: "drop" or "keep" (without a label) patients without a grade.
        split: split of the datalist; the data set is an external test set.
        progress: show a progress bar.

    Raises ValueError naming each patient that could not be converted, after all others have been.
    """
    check_choice("mixed_grade", mixed_grade, ("drop", "worst"))
    check_choice("ungraded", ungraded, ("drop", "keep"))
    check_choice("split", split, ("training", "validation", "test"))
    root, folder = source_folder(source), Path(output).expanduser().absolute()
    patients = sorted(p for pattern in ("HCC_*", "*/HCC_*") for p in root.glob(pattern) if p.is_dir())
    if not patients:
        raise FileNotFoundError(f"{root} holds no patient folder HCC_001, HCC_002, ...")
    rows = {row["tcia_id"].upper(): row for row in read_rows(clinical, "TCIA_ID")}
    grades = {p.name.upper(): _grade(rows.get(p.name.upper(), {}), mixed_grade) for p in patients}
    counts = _counts(rows, grades)
    logger.info("HCC-TACE-Seg, patients by pathology and by grade: %s", counts)
    wanted = [p for p in patients if ungraded == "keep" or grades[p.name.upper()] is not None]
    cases, failures = convert_each(
        wanted, partial(_convert, folder=folder, grades=grades, rows=rows), "HCC-TACE-Seg", progress
    )
    datalist = write_datalist(folder, "HCC-TACE-Seg", {split: cases}, mixed_grade=mixed_grade, counts=counts)
    stop_if_failed(failures, datalist, len(cases))
    return str(datalist)


def grade_from_pathology(text: str, mixed_grade: str = "drop") -> int | None:
    """Grade 0, 1, 2 of a Pathology entry, None for one without a usable grade.

    Raises ValueError for an entry that is not known, rather than guess.
    """
    entry = re.sub(r"\s*-\s*", "-", re.sub(r"\s+", " ", text).strip().lower())
    if entry in MIXED_GRADES:
        return MIXED_GRADES[entry] if mixed_grade == "worst" else None
    if entry in PLAIN_GRADES:
        return PLAIN_GRADES[entry]
    if entry in NO_GRADE:
        return None
    known = [*PLAIN_GRADES, *MIXED_GRADES, *sorted(NO_GRADE)]
    raise ValueError(f"Pathology must be one of {known}, got {text!r}")


def _convert(patient: Path, folder: Path, grades: dict[str, int | None], rows: dict[str, Row]) -> Case:
    name = patient.name.upper()
    files = {key: folder / name / f"{stem}.nii.gz" for key, stem in FILES.items()}
    if not all(path.is_file() for path in files.values()):
        for key, (array, affine) in _read_patient(patient).items():
            save_volume(array, affine, files[key])
    case: Case = {"patient_id": name, "scan_id": name, **files}
    if grades[name] is not None:
        case["label"] = grades[name]
    return case | clinical_values(rows.get(name, {}))


def _read_patient(patient: Path) -> dict[str, tuple[NDArray, NDArray]]:
    instances = index_folder(patient)
    segmentations = [i for i in instances if i.modality == "SEG"]
    if len(segmentations) != 1:
        raise ValueError(
            f"{patient} must hold one DICOM SEG, found {[str(i.path) for i in segmentations] or 'none'}"
        )
    path = segmentations[0].path
    series = referenced_series(instances, *references(path))
    affine = slice_affine(series)
    hu = read_hu(series)
    ras = LPS_TO_RAS @ affine
    masks = liver_and_mass(read_segments(path, affine, hu.shape), path)
    return {"image": (hu, ras), **{key: (mask, ras) for key, mask in masks.items()}}


def _grade(row: Row, mixed_grade: str) -> int | None:
    if "pathology" not in row and row:
        raise ValueError(f"the clinical table must have a column Pathology, has {sorted(row)}")
    try:
        return grade_from_pathology(row.get("pathology", ""), mixed_grade)
    except ValueError as error:
        raise ValueError(f"patient {row['tcia_id']}: {error}") from error


def _counts(rows: dict[str, Row], grades: dict[str, int | None]) -> dict[str, dict[str, int]]:
    pathology = Counter(rows.get(name, {}).get("pathology", "") or "(not given)" for name in grades)
    names = Counter("ungraded" if grade is None else CLASSES[grade] for grade in grades.values())
    return {"pathology": dict(pathology), "grade": dict(names)}
