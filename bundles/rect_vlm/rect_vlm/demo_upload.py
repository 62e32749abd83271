"""What a user gives to the demo page, files of any name, as one case to read."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medbundles.archives import extract

from rect_vlm.case_sources import cases_from, is_volume, stem
from rect_vlm.dicom_series import is_dicom

Case = dict[str, Any]

WANTED = (
    "a CT must be one file (.nii, .nii.gz, .nrrd, .mha, MedSAM2 .npz), a .zip of one CT or DICOM series, "
    "or all .dcm files of a series at once"
)


def uploaded_case(files: Sequence[str | Path], folder: Path) -> Case:
    """The case of uploaded files, as `case_sources.cases_from` gives it; `id` is a safe name.

    Args:
        files: one volume, one zip archive, or the files of a DICOM series.
        folder: an empty one, for what has to be unpacked or gathered.

    Raises:
        ValueError: no file, files of another kind, or an archive with none or several CTs.
    """
    paths = [Path(file) for file in files]
    if not paths:
        raise ValueError(f"choose a CT first: {WANTED}")
    name = paths[0].name
    if len(paths) == 1 and name.lower().endswith(".zip"):
        found = _unpacked(paths[0], folder)
    elif len(paths) == 1 and is_volume(paths[0]):
        found = cases_from(paths[0])[0]
    elif all(is_dicom(path) for path in paths):
        for i, path in enumerate(paths):  # browsers allow two files of one name
            shutil.copyfile(path, folder / f"{i:05d}.dcm")
        found = cases_from(folder)[0]
    else:
        other = next((path.name for path in paths if not is_dicom(path)), name)
        raise ValueError(f"{WANTED}; got {other}" + (f" among {len(paths)} files" if paths[1:] else ""))
    return found | {"id": _safe(name)}


def plain_message(error: BaseException, files: Sequence[str | Path], folder: Path) -> str:
    """The text of an error without the folders of the server and the key of a record."""
    text = " ".join(str(error).split())
    for place in sorted({str(folder), *(str(Path(file).parent) for file in files)}, key=len, reverse=True):
        text = text.replace(f"{place}/", "").replace(place, "the upload")
    return text.split(", key image: ", 1)[-1]


def _unpacked(archive: Path, folder: Path) -> Case:
    extract(archive, ["*"], "", folder)
    try:
        found = cases_from(folder)
    except ValueError as error:
        raise ValueError(f"{archive.name} holds no CT: {WANTED}") from error
    if len(found) != 1:
        names = ", ".join(sorted(case["id"] for case in found)[:5])
        raise ValueError(f"{archive.name} must hold one CT, it has {len(found)}: {names}")
    return found[0]


def _safe(name: str) -> str:
    """A name that will do as that of a folder."""
    plain = stem(Path(name)).removesuffix(".zip").removesuffix(".dcm")
    return re.sub(r"[^A-Za-z0-9._-]+", "_", plain).strip("._-")[:80] or "scan"
