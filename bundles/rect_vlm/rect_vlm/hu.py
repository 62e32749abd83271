"""Hounsfield units: how stored values become HU, and whether the result can be a chest.

CT-RATE's first release holds raw values whose slope and intercept are in its metadata table; the `_fixed`
release holds HU already, and rescaling it again turns tissue into air.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HU_SOURCES = ("auto", "nifti", "metadata")
INTENSITIES = ("hu", "uint8_window")
HU_RANGE = 1000.0  # what is beyond is clipped; the window of CT-CLIP (arXiv 2403.17834)

AIR = (-3100.0, -400.0)  # of the 0.5 % percentile: air, or the padding of the scanner
MIDDLE = (-1050.0, 400.0)  # of the median
SOFT_TISSUE = (-200.0, 300.0)
MIN_SOFT_TISSUE = 0.02  # share; rescaling twice leaves bone only in this range, far less
SAMPLED = 200_000  # voxels that are looked at


@dataclass(frozen=True)
class HuFacts:
    """What tells HU from other values: 0.5 % percentile, median and share of soft tissue."""

    low: float
    median: float
    soft_tissue: float

    @property
    def plausible(self) -> bool:
        """Whether these may be the HU of a chest."""
        return (
            AIR[0] <= self.low <= AIR[1]
            and MIDDLE[0] <= self.median <= MIDDLE[1]
            and self.soft_tissue >= MIN_SOFT_TISSUE
        )

    def __str__(self) -> str:
        return f"0.5 % at {self.low:.0f}, median {self.median:.0f}, {self.soft_tissue:.1%} soft tissue"


def resolve_source(hu_source: str, path: str | Path) -> str:
    """Where the HU of a volume come from: "nifti" (the file) or "metadata" (the table's slope and intercept).

    "auto" is "nifti" for a file in a folder named `*_fixed`, else "metadata". ValueError for another name.
    """
    if hu_source not in HU_SOURCES:
        raise ValueError(f"hu_source must be one of {', '.join(HU_SOURCES)}, got {hu_source!r}")
    if hu_source != "auto":
        return hu_source
    fixed = any(part.endswith("_fixed") for part in Path(path).parts)
    return "nifti" if fixed else "metadata"


def measure_hu(values: NDArray) -> HuFacts:
    """Facts of an evenly spread sample of a volume."""
    step = max(1, round((values.size / SAMPLED) ** (1 / values.ndim)))
    sample = np.asarray(values[(slice(None, None, step),) * values.ndim], dtype=np.float64).ravel()
    low, median = np.percentile(sample, [0.5, 50])
    inside = (sample >= SOFT_TISSUE[0]) & (sample <= SOFT_TISSUE[1])
    return HuFacts(float(low), float(median), float(inside.mean()))


def to_hu(
    stored: NDArray,
    hu_source: str = "nifti",
    slope: float | None = None,
    intercept: float | None = None,
) -> NDArray[np.float32]:
    """HU of the values a file holds, checked to be those of a chest.

    Args:
        stored: values (X, Y, Z) as the file gives them.
        hu_source: "nifti" takes them as they are, "metadata" as slope * value + intercept.
        slope, intercept: of the metadata table; with "nifti" they only serve the message.

    Raises:
        ValueError: slope or intercept is missing, values that are not finite, or no HU of a chest; the
            message tells what the other reading would give.
    """
    if hu_source == "metadata" and (slope is None or intercept is None):
        missing = [n for n, v in (("RescaleSlope", slope), ("RescaleIntercept", intercept)) if v is None]
        raise ValueError(
            f"its stored values need {' and '.join(missing)} of the metadata table, which has none; "
            'if the file holds HU already, use hu_source="nifti"'
        )
    if not np.isfinite(stored.sum(dtype=np.float64)):
        raise ValueError(f"must hold finite values only, {np.count_nonzero(~np.isfinite(stored))} are not")
    raw = np.asarray(stored, dtype=np.float32)
    hu = raw * np.float32(slope) + np.float32(intercept) if hu_source == "metadata" else raw
    facts = measure_hu(hu)
    if not facts.plausible:
        raise ValueError(_implausible(raw, facts, hu_source, slope, intercept))
    return hu


def window_to_hu(stored: NDArray) -> NDArray[np.float32]:
    """Values 0..255 of a windowed volume as -1000..1000, so that the model sees -1..1.

    Raises:
        ValueError: values outside 0..255.
    """
    low, high = float(stored.min()), float(stored.max())
    if not (low >= 0 and high <= 255):  # also nan
        raise ValueError(f'intensity="uint8_window" needs values of 0..255, got {low:g}..{high:g}')
    return np.asarray((np.asarray(stored, dtype=np.float32) / 255 * 2 - 1) * HU_RANGE, dtype=np.float32)


def _implausible(
    raw: NDArray[np.float32], facts: HuFacts, hu_source: str, slope: float | None, intercept: float | None
) -> str:
    low, high = float(raw.min()), float(raw.max())
    wanted = (
        f"0.5 % at {AIR[0]:.0f}..{AIR[1]:.0f}, median {MIDDLE[0]:.0f}..{MIDDLE[1]:.0f}, "
        f"soft tissue {MIN_SOFT_TISSUE:.0%}"
    )
    message = f"holds no HU of a chest: {facts} (a chest has {wanted})"
    if low >= 0 and high <= 255:
        return (
            f'{message}; values {low:g}..{high:g} look windowed: use intensity="uint8_window" for such data'
        )
    if hu_source == "metadata":
        other, name = measure_hu(raw), 'without rescaling (hu_source="nifti")'
    else:
        known = slope is not None and intercept is not None
        a, b = (slope, intercept) if known else (1.0, -1024.0)
        other = measure_hu(raw * np.float32(a) + np.float32(b))
        name = f"rescaled by {'the metadata' if known else 'the usual'} {a:g} * value {b:+g}"
        name += ' (hu_source="metadata")' if known else ""
    verdict = "which would be plausible" if other.plausible else "which is no chest either"
    return f"{message}; {name} it has {other}, {verdict}"
