"""DICOM headers of a folder, and one CT series of it as an array in HU."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from react_kd.convert.sheet import optional_module

_GEOMETRY = ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"]
_TAGS = ["SOPInstanceUID", "SeriesInstanceUID", "Modality", "AcquisitionNumber", *_GEOMETRY]
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Instance:
    """Header of one DICOM file; geometry in the DICOM (LPS) frame in mm, empty for files without a slice."""

    path: Path
    sop_uid: str
    series_uid: str
    modality: str
    acquisition: str
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, ...]


def index_folder(folder: Path) -> list[Instance]:
    """Headers of all DICOM files below `folder`; other files are passed over."""
    pydicom = optional_module("pydicom")
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
        except pydicom.errors.InvalidDicomError:
            continue
        found.append(_instance(path, header))
    return found


def referenced_series(instances: Sequence[Instance], sop_uids: set[str], series_uid: str) -> list[Instance]:
    """The slices of the CT a segmentation was drawn on, in order along the slice normal.

    The series is the one that holds the referenced images (else the referenced series UID). When two
    acquisitions are stacked in it, the one with most of the referenced images is taken. Raises ValueError
    when there is no such CT, or when two slices still share a position.
    """
    counts: dict[str, int] = defaultdict(int)
    images = [i for i in instances if i.modality == "CT" and i.position and i.orientation]
    for image in images:
        counts[image.series_uid] += image.sop_uid in sop_uids
    best = max(counts, key=lambda uid: (counts[uid], uid == series_uid), default="")
    chosen = [i for i in images if i.series_uid == (best if counts.get(best) else series_uid)]
    if not chosen:
        raise ValueError(f"the CT series {series_uid} that the segmentation refers to is not there")
    if _has_twins(chosen):
        groups: dict[str, list[Instance]] = defaultdict(list)
        for image in chosen:
            groups[image.acquisition].append(image)
        chosen = max(groups.values(), key=lambda group: sum(i.sop_uid in sop_uids for i in group))
    if _has_twins(chosen):
        raise ValueError(f"{chosen[0].path.parent}: two slices share a position within one acquisition")
    return sorted(chosen, key=_height)


def slice_affine(series: Sequence[Instance]) -> NDArray[np.float64]:
    """Affine 4x4 from (column, row, slice) indices to LPS mm of an ordered series.

    Raises ValueError for fewer than two slices, mixed orientations, or a missing slice.
    """
    first = series[0]
    where = first.path.parent
    if len(series) < 2:
        raise ValueError(f"{where}: a CT series must hold at least 2 slices, got {len(series)}")
    if any(not np.allclose(i.orientation, first.orientation, atol=1e-3) for i in series):
        raise ValueError(f"{where}: the slices of the series must have one orientation")
    steps = np.diff([i.position for i in series], axis=0)
    step = np.median(steps, axis=0)
    worst = int(np.abs(steps - step).max(axis=1).argmax())
    if np.abs(steps[worst] - step).max() > 0.1 * np.linalg.norm(step):
        raise ValueError(
            f"{where}: slices must be {np.linalg.norm(step):.3f} mm apart, the gap after slice {worst} is "
            f"{np.linalg.norm(steps[worst]):.3f} mm"
        )
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.orientation[:3]) * first.pixel_spacing[1]
    affine[:3, 1] = np.array(first.orientation[3:]) * first.pixel_spacing[0]
    affine[:3, 2] = (np.array(series[-1].position) - first.position) / (len(series) - 1)
    affine[:3, 3] = first.position
    return affine


def read_hu(series: Sequence[Instance]) -> NDArray[np.int16]:
    """Voxels (X, Y, Z) in HU of an ordered series; ITK decodes any compression and applies the rescale."""
    import itk

    try:
        image = itk.imread([str(i.path) for i in series], itk.F)
    except RuntimeError as error:
        raise ValueError(f"{series[0].path.parent}: ITK cannot read the series: {error}") from error
    hu = itk.array_from_image(image)  # (slice, row, column)
    return np.clip(np.round(hu.transpose(2, 1, 0)), -32768, 32767).astype(np.int16)


def _instance(path: Path, header: Any) -> Instance:
    def numbers(tag: str) -> tuple[float, ...]:
        return tuple(float(v) for v in header.get(tag) or ())

    return Instance(
        path=path,
        sop_uid=str(header.get("SOPInstanceUID", "")),
        series_uid=str(header.get("SeriesInstanceUID", "")),
        modality=str(header.get("Modality", "")),
        acquisition=str(header.get("AcquisitionNumber", "")),
        position=numbers("ImagePositionPatient"),
        orientation=numbers("ImageOrientationPatient"),
        pixel_spacing=numbers("PixelSpacing"),
    )


def _height(image: Instance) -> float:
    normal = np.cross(image.orientation[:3], image.orientation[3:])
    return float(normal @ np.array(image.position))


def _has_twins(series: Sequence[Instance]) -> bool:
    heights = np.sort([_height(i) for i in series])
    return bool((np.diff(heights) < 1e-3).any())
