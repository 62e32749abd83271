"""A DICOM SEG: what it was drawn on, and its segments as masks on the grid of that CT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from react_kd.convert.sheet import optional_module

LIVER, MASS, VESSELS = "liver", "mass", ("portal vein", "abdominal aorta")


def references(path: Path) -> tuple[set[str], str]:
    """SOP instance UIDs of the images, and UID of the series, that a SEG refers to."""
    header = optional_module("pydicom").dcmread(path, stop_before_pixels=True)
    series = header.get("ReferencedSeriesSequence") or []
    uids = {
        str(i.ReferencedSOPInstanceUID) for s in series for i in s.get("ReferencedInstanceSequence") or []
    }
    for frame in header.get("PerFrameFunctionalGroupsSequence") or []:
        for derivation in frame.get("DerivationImageSequence") or []:
            uids |= {str(i.ReferencedSOPInstanceUID) for i in derivation.get("SourceImageSequence") or []}
    return uids, str(series[0].SeriesInstanceUID) if series else ""


def read_segments(path: Path, affine_lps: NDArray, shape: tuple[int, ...]) -> dict[str, NDArray[np.bool_]]:
    """Masks (X, Y, Z) by lower-case segment label, on the grid of the CT (index to LPS affine).

    Raises ValueError when the file is no SEG, does not lie on that grid, or reaches outside of it.
    """
    highdicom = optional_module("highdicom")
    try:
        segmentation = highdicom.seg.segread(path)
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} must be a DICOM SEG that can be read: {error}") from error
    grid = highdicom.VolumeGeometry(affine_lps, shape, coordinate_system="PATIENT")
    masks: dict[str, NDArray[np.bool_]] = {}
    for number in segmentation.segment_numbers:
        label = str(segmentation.get_segment_description(number).segment_label).strip().lower()
        try:
            volume = segmentation.get_volume(
                segment_numbers=[number], combine_segments=False
            ).squeeze_channel()
            # Flips, pads and crops, but never resamples; tolerances are shares of a voxel.
            array = np.asarray(volume.match_geometry(grid, tol=0.02).array) > 0
        except RuntimeError as error:
            raise ValueError(
                f"{path}, segment {label}: does not lie on the grid of its CT: {error}"
            ) from error
        if array.sum() != (np.asarray(volume.array) > 0).sum():
            raise ValueError(f"{path}, segment {label}: reaches outside of its CT")
        masks[label] = masks[label] | array if label in masks else array
    return masks


def liver_and_mass(masks: dict[str, NDArray[np.bool_]], path: Path) -> dict[str, NDArray[np.uint8]]:
    """Liver, which holds the mass, and mass of overlapping segments; mass before vessels before liver.

    Raises ValueError naming the SEG when Liver or Mass is missing or empty.
    """
    missing = [name for name in (LIVER, MASS) if name not in masks or not masks[name].any()]
    if missing:
        raise ValueError(f"{path} must hold Liver and Mass, missing or empty {missing}, has {sorted(masks)}")
    vessels = np.zeros_like(masks[LIVER])
    for name in VESSELS:
        vessels |= masks.get(name, False)
    liver = (masks[LIVER] & ~vessels) | masks[MASS]
    return {"liver": liver.astype(np.uint8), "mass": masks[MASS].astype(np.uint8)}
