"""Where the cases to predict come from: a datalist, a folder of images, or one image."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from react_kd.cases import MASK_KEYS, PET_KEYS, stem
from react_kd.data import cases, read_datalist

logger = logging.getLogger(__name__)

CT_NAMES = ("ct", "image")
ROLES = {**dict.fromkeys(CT_NAMES, "image"), **{key: key for key in (*PET_KEYS, *MASK_KEYS)}}
DATALISTS = (".json", ".csv")
# A folder that a prediction was written to is no input, though it holds NIfTI files.
PREDICTION = "prediction.json"
WANTED = "dataset_dir must be a datalist (.json, .csv), a folder, a NIfTI file or a DICOM series"
Case = dict[str, Any]


def cases_from(source: str | Path, split: str = "auto") -> list[Case]:
    """Cases with absolute paths from a datalist, a folder, or one image.

    A folder may hold a `datalist.json`; otherwise it is searched with everything below it. A folder with
    `ct.nii.gz` (or `image.nii.gz`) is one case, to which `pet_fdg`, `pet_act`, `liver` and `mass` belong if
    they lie beside it; elsewhere every NIfTI file is a CT of its own. A folder of DICOM files stands for one
    image, under the same names or as a CT of its own. The scan_id of a case is its path below `source`.

    Args:
        source: datalist (.json, .csv), folder, NIfTI file or DICOM folder.
        split: split of a datalist; "auto" takes the test cases if it names any, otherwise all.

    Raises:
        FileNotFoundError: `source` does not exist.
        ValueError: it holds no image, two images under one name, or is a datalist with faults.
    """
    source = Path(source).expanduser().absolute()
    if not source.exists():
        raise FileNotFoundError(f"{WANTED}, got {source}: no such file")
    datalist = source / "datalist.json" if source.is_dir() else source
    if datalist.is_file() and datalist.suffix.lower() in DATALISTS:
        if split == "auto":
            split = "test" if "test" in read_datalist(datalist).splits else "all"
        return cases(datalist, split)
    if is_nifti(source):
        name = source.parent.name if stem(source) in CT_NAMES else stem(source)
        return [_named(name, {"image": source})]
    if not source.is_dir():
        raise ValueError(f"{WANTED}, got {source}")
    found = [_named(_scan_id(source, place), files) for place, files in _search(source)]
    _check(found, source)
    return found


def is_nifti(path: Path) -> bool:
    """Whether a path names a NIfTI file."""
    return path.is_file() and path.name.lower().endswith((".nii", ".nii.gz"))


def is_dicom_series(folder: Path) -> bool:
    """Whether a folder holds a DICOM file (by the mark at byte 128)."""
    return folder.is_dir() and any(_has_dicom_mark(entry) for entry in folder.iterdir() if entry.is_file())


def _has_dicom_mark(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _search(folder: Path) -> Iterator[tuple[Path, dict[str, Path]]]:
    """(place, files by key) of every case at or below a folder, in the order of their names."""
    if (folder / PREDICTION).is_file():
        return
    if is_dicom_series(folder):
        yield folder, {"image": folder}
        return
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    images = [entry for entry in entries if is_nifti(entry) or is_dicom_series(entry)]
    if any(stem(image).lower() in CT_NAMES for image in images):
        yield folder, _roles(images)
        return
    for entry in entries:
        if entry.is_dir():
            yield from _search(entry)
        elif entry in images:
            yield entry, {"image": entry}


def _roles(images: list[Path]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for image in images:
        key = ROLES.get(stem(image).lower())
        if key is None:
            logger.warning("%s is not used, the names known in a case are %s", image, ", ".join(ROLES))
        elif key in files:
            raise ValueError(f"key {key}: a case must have one image, got {files[key]} and {image}")
        else:
            files[key] = image
    return files


def _scan_id(source: Path, place: Path) -> str:
    parts = place.relative_to(source).parts or (source.name,)
    return "_".join((*parts[:-1], stem(parts[-1]) if place.is_file() else parts[-1]))


def _named(name: str, files: dict[str, Path]) -> Case:
    return {"patient_id": name, "scan_id": name, **{key: str(path) for key, path in files.items()}}


def _check(found: list[Case], source: Path) -> None:
    if not found:
        raise ValueError(f"dataset_dir must hold NIfTI files or DICOM series, {source} has none")
    places: dict[str, str] = {}
    for case in found:
        first = places.setdefault(case["scan_id"], case["image"])
        if first != case["image"]:
            raise ValueError(f"{first} and {case['image']} would both be case {case['scan_id']}, rename one")
