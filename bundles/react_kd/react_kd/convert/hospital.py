"""A hospital's dual-tracer PET/CT folders to a datalist; images and masks are used where they are.

Layout: `<grade>/<patient>/{FDG,ACT}/{CT,PET}.nii.gz` with `CT_liver.nii.gz` and `CT_tumor.nii.gz` beside the
CT; a flat `<patient>/{FDG,ACT}/...` works as well.
"""

from __future__ import annotations

import logging
from collections import Counter
from functools import partial
from pathlib import Path

from react_kd.cases import CLASSES
from react_kd.convert.common import (
    Case,
    check_choice,
    check_same_grid,
    convert_each,
    load_nifti,
    source_folder,
    stop_if_failed,
    write_datalist,
)
from react_kd.convert.sheet import Row, clinical_values, read_rows

logger = logging.getLogger(__name__)
TRACERS = {"FDG": "pet_fdg", "ACT": "pet_act"}
Patient = dict[str, Path]  # tracer -> its folder


def convert_hospital(
    source: str,
    output: str,
    table: str | None = None,
    grade_folders: bool = False,
    pairing: str = "patient",
    split: str = "training",
    progress: bool = True,
) -> str:
    """Dual-tracer PET/CT folders of a hospital to `output`/datalist.json; return its path.

    Args:
        source: folder in the layout above.
        output: folder to write the datalist to.
        table: csv or xlsx with columns patient_id, label (0, 1, 2, well, moderate, poor or empty), and, if
            known, afp, age, sex, hepatitis.
        grade_folders: take the grade from the folder above the patient (only on request: no record).
        pairing: "patient" makes one case of both tracers on the FDG CT (they must be registered to it),
            "scan" one case per tracer on its own CT; both cases keep one patient_id.
        split: split of the datalist.
        progress: show a progress bar.

    Raises ValueError unless exactly one of `table` and `grade_folders` is given, or naming each bad patient.
    """
    if (table is not None) == grade_folders:
        raise ValueError(
            "labels need exactly one source: --table FILE, or --grade_folders (the folder names)"
        )
    check_choice("pairing", pairing, ("patient", "scan"))
    check_choice("split", split, ("training", "validation", "test"))
    patients = find_patients(source_folder(source))
    rows = {row["patient_id"]: row for row in read_rows(table, "patient_id")} if table else {}
    for name in sorted(set(rows) - set(patients)):
        logger.warning("patient %s of %s has no folder below %s", name, table, source)
    per_patient, failures = convert_each(
        sorted(patients.items()),
        partial(_convert, rows=None if grade_folders else rows, pairing=pairing),
        "hospital PET/CT",
        progress,
    )
    cases = [case for group in per_patient for case in group]
    folder = Path(output).expanduser().absolute()
    datalist = write_datalist(folder, Path(source).name, {split: cases})
    logger.info("grades: %s", dict(Counter(case.get("label", "ungraded") for case in cases)))
    stop_if_failed(failures, datalist, len(per_patient))
    return str(datalist)


def find_patients(source: Path) -> dict[str, Patient]:
    """Tracer folders by patient name.

    Raises FileNotFoundError when there is none, ValueError when a patient is in two places.
    """
    patients: dict[str, Patient] = {}
    for tracer in TRACERS:
        for folder in sorted(p for p in source.rglob(tracer) if p.is_dir()):
            scans = patients.setdefault(folder.parent.name, {})
            home = next(iter(scans.values()), folder).parent
            if home != folder.parent:
                raise ValueError(
                    f"patient {folder.parent.name} must be in one place, found {home} and {folder.parent}"
                )
            scans[tracer] = folder
    if not patients:
        raise FileNotFoundError(f"{source} holds no <patient>/FDG or <patient>/ACT folder")
    return patients


def _convert(item: tuple[str, Patient], rows: dict[str, Row] | None, pairing: str) -> list[Case]:
    name, scans = item
    shared: Case = {}
    label = _folder_grade(next(iter(scans.values()))) if rows is None else _table_grade(name, rows)
    if label is not None:
        shared["label"] = label
    shared |= clinical_values((rows or {}).get(name, {}))
    if pairing == "scan":
        groups = [(f"{name}_{tracer}", {tracer: folder}) for tracer, folder in scans.items()]
    else:
        groups = [(name, scans)]
    return [{"patient_id": name, "scan_id": scan, **_files(group), **shared} for scan, group in groups]


def _files(scans: Patient) -> Case:
    """Files of a case: the CT and masks of the first tracer, the PET of each."""
    first = next(iter(scans.values()))
    case: Case = {"image": first / "CT.nii.gz"}
    for tracer, folder in scans.items():
        case[TRACERS[tracer]] = folder / "PET.nii.gz"
    for path in case.values():
        if not path.is_file():
            raise ValueError(f"{path} must be there, is missing")
        load_nifti(path)
    for key, mask in (("liver", first / "CT_liver.nii.gz"), ("mass", first / "CT_tumor.nii.gz")):
        if mask.is_file():
            check_same_grid(case["image"], mask)
            case[key] = mask
        else:
            logger.warning("%s is missing: the case can be predicted, not trained on", mask)
    return case


def _folder_grade(scan: Path) -> int:
    name = scan.parent.parent.name.lower()
    for grade, word in enumerate(CLASSES):
        if name == str(grade) or name.startswith(word):
            return grade
    raise ValueError(f"grade folder must be 0, 1, 2 or begin with one of {CLASSES}, got {scan.parent.parent}")


def _table_grade(name: str, rows: dict[str, Row]) -> int | None:
    if name not in rows:
        logger.warning("patient %s is not in the table: ungraded", name)
        return None
    if "label" not in rows[name]:
        raise ValueError(f"the table must have a column label, has {sorted(rows[name])}")
    text = rows[name]["label"].lower().removesuffix(".0")
    if text == "":
        return None
    for grade, word in enumerate(CLASSES):
        if text in (str(grade), word):
            return grade
    raise ValueError(f"patient {name}: label must be 0, 1, 2 or one of {CLASSES} or empty, got {text!r}")
