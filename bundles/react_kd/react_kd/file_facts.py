"""Read image files to the last byte and remember what was found, so that a second start is fast."""

from __future__ import annotations

import gzip
import json
import logging
import os
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from medbundles.fingerprint import file_stamp
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

VERSION = 1  # raise when FileFacts or the way it is measured changes


@dataclass(frozen=True)
class FileFacts:
    """What validation needs to know about one image; `error` says why it could not be read."""

    error: str = ""
    shape: tuple[int, ...] = ()
    affine: list[list[float]] = field(default_factory=list)
    low: float = 0.0
    high: float = 0.0
    not_finite: int = 0
    # Masks only: voxels that are not zero, how many values they have (2 = two or more), their index box.
    foreground: int = 0
    labels: int = 0
    box: list[list[int]] = field(default_factory=list)


def read_facts(path: str | Path, is_mask: bool = False) -> FileFacts:
    """Read a whole NIfTI file or DICOM folder and measure it; a damaged one comes back with `error` set."""
    path = Path(path)
    try:
        array, affine = _read_dicom(path) if path.is_dir() else _read_nifti(path)
    except (
        OSError,
        EOFError,
        zlib.error,
        ValueError,
        RuntimeError,
        nib.filebasedimages.ImageFileError,
    ) as error:
        return FileFacts(error=f"cannot be read ({type(error).__name__}: {_first_line(error)})")
    if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        return FileFacts(error=f"has no usable voxel size, its affine is {affine.tolist()}")
    finite = np.isfinite(array)
    not_finite = int(array.size - np.count_nonzero(finite))
    values = array if not_finite == 0 else array[finite]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    mask = _mask_facts(array) if is_mask and array.ndim == 3 else {}
    return FileFacts("", tuple(array.shape), affine.tolist(), low, high, not_finite, **mask)


def all_facts(
    files: Iterable[tuple[str, bool]], cache: Path | None, progress: bool, workers: int = 4
) -> dict[tuple[str, bool], FileFacts]:
    """Facts of (path, is_mask) pairs, read by threads; known files come from the JSON file `cache`."""
    from tqdm import tqdm

    known = _load(cache)
    wanted = {(path, is_mask): _key(path, is_mask) for path, is_mask in files}
    unknown = [pair for pair, key in wanted.items() if key not in known]
    if unknown:
        with ThreadPoolExecutor(workers) as pool:
            results = pool.map(lambda pair: read_facts(*pair), unknown)
            bar = tqdm(results, total=len(unknown), desc="checking images", disable=not progress)
            known.update({wanted[pair]: facts for pair, facts in zip(unknown, bar, strict=True)})
        _store(cache, known)
    return {pair: known[key] for pair, key in wanted.items()}


def _read_nifti(path: Path) -> tuple[NDArray, NDArray]:
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise ValueError("must be a NIfTI file (.nii, .nii.gz) or a folder of one DICOM series")
    image: Any = nib.load(path)
    if path.name.lower().endswith(".gz"):
        # nibabel stops before the checksum at the end of the stream; gzip compares it once it has read all.
        with gzip.open(path) as stream:
            image = type(image).from_bytes(stream.read())
    return np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine)


def _read_dicom(folder: Path) -> tuple[NDArray, NDArray]:
    import itk
    from monai.data import ITKReader

    names = itk.GDCMSeriesFileNames.New()
    names.SetUseSeriesDetails(True)
    names.SetDirectory(str(folder))
    series = list(names.GetSeriesUIDs())
    if len(series) != 1:
        raise ValueError(f"the folder must hold one DICOM series, holds {len(series)}")
    reader = ITKReader()
    array, meta = reader.get_data(reader.read(str(folder)))
    return np.asarray(array, dtype=np.float32), np.asarray(meta["affine"])


def _mask_facts(array: NDArray) -> dict[str, Any]:
    inside = array != 0
    foreground = int(np.count_nonzero(inside))
    if not foreground:
        return {}
    values = array[inside]
    places = [np.flatnonzero(inside.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    box = [[int(p[0]) for p in places], [int(p[-1]) for p in places]]
    return {"foreground": foreground, "labels": 1 if np.all(values == values[0]) else 2, "box": box}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0]


def _key(path: str, is_mask: bool) -> str:
    return json.dumps([os.path.abspath(path), is_mask, *file_stamp(path)])


def _load(cache: Path | None) -> dict[str, FileFacts]:
    if cache is None or not cache.is_file():
        return {}
    try:
        content = json.loads(cache.read_text())
        if content["version"] != VERSION:
            return {}
        return {
            key: FileFacts(**{**row, "shape": tuple(row["shape"])}) for key, row in content["files"].items()
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s is not readable and will be written anew: %s", cache, error)
        return {}


def _store(cache: Path | None, known: dict[str, FileFacts]) -> None:
    if cache is None:
        return
    from medbundles.atomic import write_text

    rows = {key: asdict(facts) for key, facts in known.items() if not facts.error}
    try:
        write_text(cache, json.dumps({"version": VERSION, "files": rows}))
    except OSError as error:
        logger.warning("results of the image check are not kept: %s", error)
