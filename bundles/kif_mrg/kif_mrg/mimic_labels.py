"""Labels of MIMIC-CXR-JPG (Johnson et al., 2019): the CheXpert or NegBio table and how it meets records."""

from __future__ import annotations

import csv
import gzip
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from medbundles.text.labeler import BLANK, CHEXPERT_CONDITIONS, NEGATIVE, POSITIVE, UNCERTAIN

from kif_mrg.conditions import IGNORE
from kif_mrg.records import Record

logger = logging.getLogger(__name__)

StudyLabels = dict[tuple[int, int], list[int]]

_STATES = {"": BLANK, "nan": BLANK, "1": POSITIVE, "0": NEGATIVE, "-1": UNCERTAIN}


def read_mimic_labels(path: str | Path) -> StudyLabels:
    """Read mimic-cxr-2.0.0-chexpert.csv (or .csv.gz) as {(subject, study): 14 states in CheXbert order}.

    The table codes 1 positive, 0 negative, -1 uncertain and empty for not mentioned, with its columns in
    alphabetical order.

    Raises:
        ValueError: a column is missing or a cell is none of these; names the file, line and column.
    """
    path = Path(path).expanduser()
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as stream:
        rows = csv.DictReader(stream)
        columns = {_snake_case(name): name for name in rows.fieldnames or ()}
        missing = [name for name in ("subject_id", "study_id", *CHEXPERT_CONDITIONS) if name not in columns]
        if missing:
            raise ValueError(
                f"{path} must have the columns of the CheXpert labels, lacks {', '.join(missing)}"
            )
        names = [columns[name] for name in CHEXPERT_CONDITIONS]
        table: StudyLabels = {}
        for line, row in enumerate(rows, start=2):
            try:
                states = [_STATES[(row[name] or "").strip().lower().removesuffix(".0")] for name in names]
                study = (_number(row[columns["subject_id"]]), _number(row[columns["study_id"]]))
            except (KeyError, ValueError, TypeError) as error:
                raise ValueError(
                    f"{path}, line {line}: must hold two ids and 14 cells of 1, 0, -1 or nothing, got {error}"
                ) from error
            table[study] = states
    return table


def attach_mimic_labels(
    records: Iterable[Record], table: Mapping[tuple[int, int], Sequence[int]], conditions: Sequence[str]
) -> int:
    """Replace the labels of every record whose study is in the table and return how many there were.

    Studies match as 12345678 or "s12345678"; a record that knows its patient must match in that as well.
    Conditions that the table lacks become IGNORE.
    """
    by_study = {study: (subject, labels) for (subject, study), labels in table.items()}
    order = [CHEXPERT_CONDITIONS.index(name) if name in CHEXPERT_CONDITIONS else None for name in conditions]
    attached = 0
    for record in records:
        study = record["study_id"].removeprefix("s")
        subject, labels = by_study.get(int(study), (0, ())) if study.isdecimal() else (0, ())
        if not labels or record.get("subject_id", str(subject)) != str(subject):
            continue
        record["labels"] = [IGNORE if column is None else labels[column] for column in order]
        attached += 1
    return attached


def _number(cell: str) -> int:
    return int(cell.strip().lstrip("ps").removesuffix(".0"))


def _snake_case(column: str) -> str:
    return column.strip().lower().replace(" ", "_")
