"""What one radiograph study is after reading: its keys, whose study it is, and what makes it unusable."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

from medbundles.problems import Problems

from kif_mrg.conditions import IGNORE, STATES

SPLITS = ("train", "val", "test")
REQUIRED_KEYS = ("id", "study_id", "image_path", "report", "raw", "labels", "split")

_LABELS = frozenset({*range(len(STATES)), IGNORE})
_NO_FINDING_LABELS = frozenset({0, 1, IGNORE})  # it is there or not said, never denied
_MIMIC_PATH = re.compile(r"(?:^|/)p(\d{8})/s(\d{8})(?:/|$)")
_MIMIC_STUDY = re.compile(r"s(\d{8})")
_IU_ID = re.compile(r"(CXR\d+)_IM")


class _RequiredKeys(TypedDict):
    id: str
    study_id: str
    image_path: list[str]
    report: str
    raw: str
    labels: list[int]
    split: str


class Record(_RequiredKeys, total=False):
    """One entry of an annotation file.

    image_path: one absolute path per view. report: cleaned text; raw: as written. labels: a state 0..3
    (blank, positive, negative, uncertain) or IGNORE per condition. retrieved: rows of a report memory.
    subject_id: the patient, where the file tells. annotation: the file it came from.
    """

    retrieved: list[int]
    subject_id: str
    annotation: str


Splits = dict[str, list[Record]]


def describe(record: Mapping[str, Any]) -> str:
    """Name a record for a message: file, split, entry."""
    file = os.path.basename(record.get("annotation", "")) or "records"
    return f"{file}, {record.get('split', 'no split')}, entry {record.get('id', 'without id')}"


def study_of(entry: Mapping[str, Any], image: str) -> str:
    """Study of an entry: its study_id, else the s-folder of a MIMIC path, else the CXR number of an IU id.

    All images of one examination share it, so it decides what may not be retrieved and may not cross
    splits. "s50414267" and 50414267 are the same study. An entry that tells nothing is a study of its own.
    """
    given = entry.get("study_id")
    if given not in (None, ""):
        mimic = _MIMIC_STUDY.fullmatch(str(given))
        return mimic[1] if mimic else str(given)
    if found := _MIMIC_PATH.search(image):
        return found[2]
    iu = _IU_ID.match(str(entry["id"]))
    return iu[1] if iu else str(entry["id"])


def subject_of(entry: Mapping[str, Any], image: str) -> str | None:
    """Patient of an entry: its subject_id, else the p-folder of a MIMIC path, else None."""
    given = entry.get("subject_id")
    if given not in (None, ""):
        return re.sub(r"^p(?=\d{8}$)", "", str(given))
    found = _MIMIC_PATH.search(image)
    return found[1] if found else None


def record_problems(record: Mapping[str, Any], conditions: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong) for everything that can be seen without opening an image."""
    for key in REQUIRED_KEYS:
        if key not in record:
            yield key, "required, missing"
    if "image_path" in record and not record["image_path"]:
        yield "image_path", "must name at least one image, got none"
    if "report" in record and not re.search(r"\w", record["report"]):
        yield "report", f"must hold words, got {record.get('raw', record['report'])!r}"
    if "split" in record and record["split"] not in SPLITS:
        yield "split", f"must be one of {', '.join(SPLITS)}, got {record['split']!r}"
    if "labels" in record:
        yield from _label_problems(record["labels"], conditions)


def note_record_problems(
    splits: Mapping[str, Sequence[Record]], conditions: Sequence[str], problems: Problems
) -> None:
    """Add the `record_problems` of every record to `problems`."""
    for records in splits.values():
        for record in records:
            for key, problem in record_problems(record, conditions):
                problems.add(key, f"{describe(record)}, key {key}: {problem}")


def _label_problems(labels: Sequence[Any], conditions: Sequence[str]) -> Iterator[tuple[str, str]]:
    if len(labels) != len(conditions):
        # 14 and 18 are the lengths that reading brings to the length of the conditions.
        lengths = " or ".join(map(str, sorted({14, 18, len(conditions)})))
        yield "labels", f"must have {lengths} values, got {len(labels)}"
        return
    # All at once first, the long way for the messages only: there may be 270,000 records.
    finding = list(conditions).index("no_finding") if "no_finding" in conditions else None
    if _LABELS.issuperset(labels) and (finding is None or labels[finding] in _NO_FINDING_LABELS):
        return
    for condition, label in zip(conditions, labels, strict=True):
        allowed = _NO_FINDING_LABELS if condition == "no_finding" else _LABELS
        if label not in allowed:
            yield "labels", f"{condition} must be 0..{max(allowed)}, or {IGNORE} for unknown, got {label!r}"
