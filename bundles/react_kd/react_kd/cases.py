"""What one case is: its keys, its grade, and how an error names it."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PET_KEYS = ("pet_fdg", "pet_act")
MASK_KEYS = ("liver", "mass")
FILE_KEYS = ("image", *PET_KEYS, *MASK_KEYS)
CASE_KEYS = ("patient_id", "scan_id", *FILE_KEYS, "label", "clinical")
CLASSES = ("well", "moderate", "poor")
UNGRADED = -1


def describe(case: Mapping[Any, Any]) -> str:
    """Name a case for a message: its scan_id, or the file of its CT."""
    name = case.get("scan_id") or case.get("image") or "without scan_id"
    return f"case {name}"


def stem(path: str | os.PathLike) -> str:
    """File or folder name without .nii, .nii.gz."""
    name = Path(path).name
    return name.removesuffix(".gz").removesuffix(".nii")


def nearest_key(key: str, known: Sequence[str] = CASE_KEYS) -> str:
    """Return the known key that looks most like `key`."""
    return difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]


def grade_of(case: Mapping[Any, Any], classes: Sequence[str] = CLASSES) -> int:
    """Class index of a case, -1 when it has no grade.

    The label is an index or a class name. Raises ValueError for anything else; a path (a segmentation mask
    under the key label) gets a message of its own.
    """
    label = case.get("label")
    if label is None or label == "":
        return UNGRADED
    allowed = f"one of 0..{len(classes) - 1}, {', '.join(classes)}, or nothing for an ungraded case"
    problem = f"{describe(case)}, key label: must be {allowed}, got {label!r}"
    if isinstance(label, str) and label in classes:
        return list(classes).index(label)
    if isinstance(label, os.PathLike) or (isinstance(label, str) and _looks_like_path(label)):
        raise ValueError(
            f"{problem}, which is a file; label is the grade of the scan, masks belong under liver and mass"
        )
    try:
        value = float(label)
    except (TypeError, ValueError) as error:
        raise ValueError(problem) from error
    if isinstance(label, bool) or not math.isfinite(value) or value != int(value):
        raise ValueError(problem)
    if not 0 <= value < len(classes):
        raise ValueError(problem)
    return int(value)


def _looks_like_path(text: str) -> bool:
    return os.sep in text or "/" in text or text.endswith((".nii", ".gz", ".nrrd", ".mha", ".dcm"))
