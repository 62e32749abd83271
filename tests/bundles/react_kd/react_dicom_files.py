"""Synthetic patients in the layout of HCC-TACE-Seg: a CT series and an overlapping DICOM SEG drawn on it."""

from __future__ import annotations

from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from highdicom.sr.coding import CodedConcept
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SHAPE = (9, 24, 20)  # slices, rows, columns
SPACING = (2.5, 0.8, 0.7)  # between slices, rows, columns, mm
ORIGIN = (-30.0, -40.0, 120.0)  # LPS, mm
LABELS = ("Liver", "Mass", "Portal vein", "Abdominal aorta")


def segments() -> dict[str, np.ndarray]:
    """Overlapping masks (slices, rows, columns): the mass lies in the liver and crosses the vein."""
    masks = {label: np.zeros(SHAPE, bool) for label in LABELS}
    masks["Liver"][1:8, 3:18, 2:15] = True
    masks["Mass"][3:6, 5:9, 4:8] = True
    masks["Portal vein"][2:7, 8:11, 6:10] = True
    masks["Abdominal aorta"][:, 15:21, 13:17] = True
    return masks


def ct_array(seed: int = 0) -> np.ndarray:
    """HU (slices, rows, columns), every voxel its own value."""
    return np.random.default_rng(seed).integers(-900, 1200, SHAPE).astype(np.int16)


def ct_series(
    folder: Path,
    hu: np.ndarray,
    study: str,
    frame: str,
    series: str,
    acquisition: int = 1,
    reverse: bool = False,
) -> list[pydicom.Dataset]:
    """Write a CT series in `folder`; file names do not follow the slice order when `reverse`."""
    folder.mkdir(parents=True, exist_ok=True)
    datasets = []
    for k, plane in enumerate(hu):
        ds = pydicom.Dataset()
        ds.file_meta = pydicom.dataset.FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.PatientID, ds.PatientName, ds.Modality = "HCC", "Nobody^Test", "CT"
        ds.PatientBirthDate = ds.PatientSex = ds.AccessionNumber = ds.StudyID = ""
        ds.StudyDate, ds.StudyTime, ds.ReferringPhysicianName = "20000101", "000000", ""
        ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = 1, acquisition, k + 1
        ds.ImagePositionPatient = [ORIGIN[0], ORIGIN[1], ORIGIN[2] + k * SPACING[0]]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness = [SPACING[1], SPACING[2]], SPACING[0]
        ds.Rows, ds.Columns = plane.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
        ds.PixelData = (plane.astype(np.int32) + 1024).astype(np.uint16).tobytes()
        name = len(hu) - k if reverse else k
        ds.save_as(folder / f"{acquisition}-{name:03d}.dcm", enforce_file_format=True)
        datasets.append(ds)
    return datasets


def seg_file(path: Path, sources: list[pydicom.Dataset], masks: dict[str, np.ndarray]) -> None:
    """Write a binary DICOM SEG with one segment per mask, empty frames left out."""
    organ = CodedConcept("85756007", "SCT", "Tissue")
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=organ,
            segmented_property_type=organ,
            algorithm_type="MANUAL",
        )
        for number, label in enumerate(masks, start=1)
    ]
    seg = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=np.stack(list(masks.values()), axis=-1).astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=300,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="test",
        manufacturer_model_name="test",
        software_versions="1",
        device_serial_number="1",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(path)


def patient(folder: Path, masks: dict[str, np.ndarray] | None = None, stacked: bool = False) -> np.ndarray:
    """Write one patient with a longer CT that the SEG does not refer to; return the HU of the right one.

    `stacked` puts a second contrast phase with the same slice positions into the same series.
    """
    study, frame, series = generate_uid(), generate_uid(), generate_uid()
    hu = ct_array(1)
    sources = ct_series(folder / "study/portal", hu, study, frame, series, acquisition=2, reverse=True)
    other = series if stacked else generate_uid()
    ct_series(folder / "study/other", ct_array(2), study, frame, other, acquisition=1)
    ct_series(
        folder / "study/late", np.concatenate([ct_array(3)] * 2), study, frame, generate_uid(), acquisition=3
    )
    seg_file(folder / "study/seg/1.dcm", sources, segments() if masks is None else masks)
    (folder / "study/LICENSE.txt").write_text("not DICOM")
    return hu
