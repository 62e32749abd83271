"""The CT series of a folder of DICOM files, as HU on its grid."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rect_vlm.grids import LPS_TO_RAS, VolumeGrid

_GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_RESCALE = ("RescaleSlope", "RescaleIntercept")
_TAGS = ["Modality", "SeriesInstanceUID", "SeriesDescription", "SOPInstanceUID", "Rows", "Columns"]
_TAGS += [*_GEOMETRY, *_RESCALE]
MAX_UNEVEN = 0.1  # of the distance between slices

Header = Any  # pydicom.Dataset; the package is imported where a DICOM file is read


def is_dicom(path: Path) -> bool:
    """Whether a file carries the DICOM mark at byte 128."""
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def dicom_headers(folder: Path, tags: list[str] | None = None) -> dict[Path, Header]:
    """Headers, without pixels, of the DICOM files of a folder; ImportError without pydicom."""
    try:
        import pydicom
    except ImportError as error:
        raise ImportError(
            f"{folder} needs pydicom; install it with: pip install 'medbundles[text]'"
        ) from error
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and is_dicom(path)]
    return {
        path: pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(tags) if tags else None)
        for path in files
    }


def ct_slices(folder: str | Path) -> list[tuple[Path, Header]]:
    """Files and headers of the one CT series of a folder, in order along the slice normal.

    Structure sets and other modalities beside it are passed over.

    Raises:
        ValueError: no CT or more than one series, slices that lack geometry or rescale, that are uneven or
            differ in size or orientation; names the folder or file and the tag.
    """
    folder = Path(folder)
    series: dict[str, list[tuple[Path, Header]]] = defaultdict(list)
    for path, header in dicom_headers(folder, _TAGS).items():
        if header.get("Modality") == "CT":
            series[str(header.get("SeriesInstanceUID", ""))].append((path, header))
    if len(series) != 1:
        found = ", ".join(f"{uid} ({len(files)} files)" for uid, files in series.items()) or "none"
        raise ValueError(f"{folder}: the folder must hold one CT series in DICOM, got {found}")
    slices = next(iter(series.values()))
    for path, header in slices:
        missing = [tag for tag in (*_GEOMETRY, *_RESCALE) if header.get(tag) in (None, "")]
        if missing:
            raise ValueError(f"{path}: a CT slice must have {', '.join(missing)}, it has none")
    slices.sort(key=lambda item: _height(item[1]))
    _check_slices(folder, slices)
    return slices


def series_grid(slices: list[tuple[Path, Header]]) -> VolumeGrid:
    """Grid of ordered slices: X along the rows, Y down the columns, Z along the normal."""
    first, last = slices[0][1], slices[-1][1]
    orientation, spacing = _numbers(first, "ImageOrientationPatient"), _numbers(first, "PixelSpacing")
    start, end = _numbers(first, "ImagePositionPatient"), _numbers(last, "ImagePositionPatient")
    affine = np.eye(4)
    affine[:3, 0] = orientation[:3] * spacing[1]
    affine[:3, 1] = orientation[3:] * spacing[0]
    affine[:3, 2] = (end - start) / max(len(slices) - 1, 1)
    affine[:3, 3] = start
    return VolumeGrid((int(first.Columns), int(first.Rows), len(slices)), LPS_TO_RAS @ affine)


def read_series(folder: str | Path) -> tuple[NDArray[np.float32], VolumeGrid]:
    """HU (X, Y, Z) and grid of the CT series of a folder; errors as in `ct_slices`."""
    slices = ct_slices(folder)
    planes = _itk_planes(slices) if _compressed(slices[0][0]) else _planes(slices)
    return np.ascontiguousarray(planes.transpose(2, 1, 0)), series_grid(slices)


def _planes(slices: list[tuple[Path, Header]]) -> NDArray[np.float32]:
    import pydicom

    planes = []
    for path, header in slices:
        try:
            stored = pydicom.dcmread(path).pixel_array.astype(np.float32)
        except (ValueError, AttributeError, EOFError) as error:
            raise ValueError(f"{path}: its pixels cannot be read: {error}") from error
        planes.append(stored * np.float32(header.RescaleSlope) + np.float32(header.RescaleIntercept))
    return np.stack(planes)


def _itk_planes(slices: list[tuple[Path, Header]]) -> NDArray[np.float32]:
    """By ITK, which decodes every compression and applies the rescale; slower to import."""
    import itk

    try:
        image = itk.imread([str(path) for path, _ in slices], itk.F)
    except RuntimeError as error:
        raise ValueError(f"{slices[0][0].parent}: ITK cannot read the series: {error}") from error
    return np.asarray(itk.array_from_image(image), dtype=np.float32)


def _compressed(path: Path) -> bool:
    from pydicom.filereader import read_file_meta_info

    return bool(read_file_meta_info(path).TransferSyntaxUID.is_compressed)


def _check_slices(folder: Path, slices: list[tuple[Path, Header]]) -> None:
    if len(slices) < 2:
        raise ValueError(f"{folder}: a CT series must be a 3-D volume, got {len(slices)} slice")
    first = slices[0][1]
    for path, header in slices:
        for tag in ("Rows", "Columns", "ImageOrientationPatient", "PixelSpacing"):
            if not np.allclose(_numbers(header, tag), _numbers(first, tag), atol=1e-3):
                raise ValueError(
                    f"{path}, {tag}: must be {first.get(tag)} as in the first, got {header.get(tag)}"
                )
    steps = np.diff([_height(header) for _, header in slices])
    usual = float(np.median(steps))
    worst = int(np.abs(steps - usual).argmax())
    if usual <= 0 or abs(steps[worst] - usual) > MAX_UNEVEN * usual:
        raise ValueError(
            f"{folder}: slices must be {usual:.3g} mm apart, {slices[worst][0].name} and "
            f"{slices[worst + 1][0].name} are {steps[worst]:.3g} mm apart"
        )


def _height(header: Header) -> float:
    orientation = _numbers(header, "ImageOrientationPatient")
    normal = np.cross(orientation[:3], orientation[3:])
    return float(normal @ _numbers(header, "ImagePositionPatient"))


def _numbers(header: Header, tag: str) -> NDArray[np.float64]:
    return np.atleast_1d(np.asarray(header.get(tag), dtype=np.float64))
