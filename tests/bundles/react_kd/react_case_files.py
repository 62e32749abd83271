"""Tiny liver cases in real files, for the tests of the data pipeline: distinct axes, anisotropic voxels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

SHAPE = (40, 36, 20)
AFFINE = np.array([[-2.0, 0, 0, 50], [0, 1.5, 0, -30], [0, 0, 5, -40], [0, 0, 0, 1]])  # LAS, mm
PET_AFFINE = np.array([[3.0, 0, 0, -30], [0, 4.0, 0, -34], [0, 0, 5, -45], [0, 0, 0, 1]])
PET_SHAPE = (28, 16, 22)


def ellipsoid(center: tuple, radii: tuple, shape: tuple = SHAPE) -> np.ndarray:
    grid = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    return sum(((g - c) / r) ** 2 for g, c, r in zip(grid, center, radii, strict=True)) < 1


LIVER = ellipsoid((15, 16, 10), (8, 8, 5))
MASS = ellipsoid((14, 14, 10), (3, 3, 2))
BODY = ellipsoid((20, 18, 10), (17, 15, 1000))


def ct(seed: int = 0) -> np.ndarray:
    """CT in HU (40, 36, 20): air, body, liver, lesion, noise."""
    noise = np.random.default_rng(seed).normal(0, 10, SHAPE)
    return (np.where(BODY, 40, -1000) + 60 * LIVER - 40 * MASS + noise).astype(np.int16)


def pet() -> np.ndarray:
    """Uptake in SUV that grows along the patient's left-right axis, on a grid of its own (28, 16, 22)."""
    index = np.indices(PET_SHAPE).reshape(3, -1)
    world = PET_AFFINE[:3, :3] @ index + PET_AFFINE[:3, 3:]
    return (0.05 * (world[0] + 60)).reshape(PET_SHAPE).astype(np.float32)


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return str(path)


def write_case(folder: Path, scan_id: str = "s0", label: int | None = 1, **changes: Any) -> dict[str, Any]:
    """Write a complete case and return it; a change of a key to None leaves it out, an array replaces it."""
    arrays: dict[str, Any] = {
        "image": ct(),
        "liver": LIVER.astype(np.uint8),
        "mass": MASS.astype(np.uint8),
        "pet_fdg": pet(),
        "pet_act": pet(),
    }
    case: dict[str, Any] = {"patient_id": f"p_{scan_id}", "scan_id": scan_id}
    for key, array in {**arrays, **changes}.items():
        if array is not None:
            affine = PET_AFFINE if key.startswith("pet") else AFFINE
            case[key] = save(folder / scan_id / f"{key}.nii.gz", array, affine)
    return case if label is None else {**case, "label": label}


def write_dicom(folder: Path, array: np.ndarray, affine: np.ndarray = AFFINE, name: str = "slice") -> str:
    """Write a CT (X, Y, Z) in HU with a diagonal RAS affine as one DICOM series."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    for k in range(array.shape[2]):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
        data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = series, study, frame
        data.Modality, data.PatientID, data.InstanceNumber = "CT", "p", k + 1
        data.Rows, data.Columns = array.shape[1], array.shape[0]
        data.ImagePositionPatient = [float(v) for v in (to_lps @ [0, 0, k, 1])[:3]]
        axes = (to_lps[:3, :2] / spacing[:2]).T
        data.ImageOrientationPatient = [float(v) for v in axes.ravel()]
        data.PixelSpacing = [float(spacing[1]), float(spacing[0])]
        data.SliceThickness = float(spacing[2])
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        data.RescaleIntercept, data.RescaleSlope = -1024, 1
        data.PixelData = (array[:, :, k].T + 1024).clip(0).astype("<u2").tobytes()
        data.save_as(folder / f"{name}{k:03d}.dcm", enforce_file_format=True)
    return str(folder)
