"""Radiographs and annotation files on disk, sound and damaged, for the tests of reading and checking."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

RAMP = np.linspace(0, 255, 40 * 30).reshape(40, 30).astype(np.uint8)


def save_picture(path: Path, array: NDArray = RAMP, **options: Any) -> str:
    """Write (H, W) or (H, W, C) in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return str(path)


def cut_short(path: Path) -> str:
    """Remove the last third of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: 2 * len(content) // 3])
    return str(path)


def save_dicom(path: Path, stored: NDArray, photometric: str = "MONOCHROME2", **tags: Any) -> str:
    """Write uint16 (H, W), or (F, H, W), as a DICOM radiograph; tags by keyword."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = DigitalXRayImageStorageForPresentation
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.Rows, data.Columns = stored.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, photometric
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    if stored.ndim == 3:
        data.NumberOfFrames = len(stored)
    data.PixelData = stored.astype("<u2").tobytes()
    for tag, value in tags.items():
        setattr(data, tag, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return str(path)


def entry(name: str, image: str | list[str] | None = None, **changes: Any) -> dict[str, Any]:
    """An entry in R2Gen's format with 18 labels; a change to None leaves the key out."""
    complete = {
        "id": name,
        "report": f"Heart size is normal. No effusion in {name}.",
        "image_path": f"{name}.png" if image is None else image,
        "labels": [0] * 18,
        **changes,
    }
    return {key: value for key, value in complete.items() if value is not None}


def write_annotation(folder: Path, content: Any, images: bool = True) -> Path:
    """Write annotation.json, and for every entry with an `image_path` that is one name its picture."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row for part in content.values() for row in part] if isinstance(content, dict) else content
    for row in rows if images else ():
        save_picture(folder / "images" / row["image_path"])
    path = folder / "annotation.json"
    path.write_text(json.dumps(content))
    return path
