"""The CT volume of a simulated chest: HU, TotalSegmentator's structures and the outlines of five lesions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rect_vlm import phantom_lesions as lesions
from rect_vlm import phantom_mediastinum as mediastinum
from rect_vlm import phantom_parenchyma as parenchyma
from rect_vlm.findings import LESIONS
from rect_vlm.phantom_anatomy import Shape, draw_anatomy
from rect_vlm.phantom_chest import Chest
from rect_vlm.phantom_facts import LOWER, SIDES, Facts, Severity
from rect_vlm.phantom_grid import Grid

HYPERINFLATION: dict[Severity, float] = {"mild": 8, "moderate": 15, "severe": 22}  # mm
COLLAPSE = 16.0  # mm
NOISE_HU = (10.0, 22.0)  # standard deviation
BLUR_MM = 1.6  # standard deviation of the scanner's point spread within a slice


@dataclass(frozen=True)
class Scan:
    """A simulated CT (D,H,W) towards superior, posterior and left; `affine` maps an index to NIfTI's mm."""

    hu: NDArray[np.int16]
    structures: NDArray[np.uint8]
    lesions: dict[str, NDArray[np.bool_]]
    affine: NDArray[np.float64]


def draw_scan(facts: Facts, rng: np.random.Generator, scanner: np.random.Generator) -> Scan:
    """The CT of `facts`: `rng` gives build and exact places, `scanner` the voxel grid and the noise."""
    # A stream of its own for each part: without a finding, the rest of the picture stays as it is.
    body, *parts = rng.spawn(18)
    chest = draw_anatomy(scan_grid(scanner), _shape(facts, body), body)
    _draw_findings(chest, facts, parts)
    hu = ndimage.gaussian_filter(chest.hu, (0, *(BLUR_MM / mm for mm in chest.grid.spacing[1:])), truncate=2)
    hu += scanner.uniform(*NOISE_HU) * scanner.standard_normal(hu.shape, dtype=np.float32)
    hu = np.round(np.clip(hu, -1024, 3071)).astype(np.int16)
    none = np.zeros(hu.shape, dtype=bool)
    outlines = {lesion: chest.masks.get(lesion, none) for lesion in LESIONS}
    outlines["ground_glass_opacity"] = outlines["ground_glass_opacity"] & ~outlines["lung_nodule"]
    return Scan(hu, chest.labels, outlines, chest.grid.affine)


def _shape(facts: Facts, rng: np.random.Generator) -> Shape:
    # Emphysema pushes the diaphragm down, airless lung pulls it up.
    pushed = 0.0 if facts.emphysema is None else HYPERINFLATION[facts.emphysema]
    pulled = {side: COLLAPSE * (LOWER[side] in facts.atelectasis) for side in SIDES}
    return Shape(
        heart=float(rng.uniform(*mediastinum.HEART_SCALE[facts.cardiomegaly])),
        contrast=facts.contrast,
        aorta_radius=mediastinum.AORTA_RADIUS[facts.arterial_calcification],
        lift={side: pulled[side] - pushed for side in SIDES},
    )


def scan_grid(rng: np.random.Generator) -> Grid:
    """Voxels of 3.3-3.7 mm in slices of 7-9 mm from above the apices to the upper abdomen."""
    in_plane, slices = rng.uniform(3.3, 3.7), rng.uniform(7, 9)
    low, high = -174 + rng.normal(0, 3), 126 + rng.normal(0, 3)
    shape = (round((high - low) / slices), round(272 / in_plane), round(368 / in_plane))
    origin = (low, -0.5 * 272 + 6 + rng.normal(0, 2.5), -0.5 * (shape[2] - 1) * in_plane + rng.normal(0, 2.5))
    return Grid(shape, (slices, in_plane, in_plane), origin)


def _draw_findings(chest: Chest, facts: Facts, streams: list[np.random.Generator]) -> None:
    # What takes the place of lung comes first, so that nothing in the lungs is hidden by it.
    draw = iter(streams)
    steps = (
        (facts.pericardial_mm, mediastinum.pericardial_effusion),
        (facts.hernia_mm, mediastinum.hiatal_hernia),
        (facts.effusion, lesions.pleural_effusion),
        (facts.emphysema, parenchyma.emphysema),
        (facts.mosaic, parenchyma.mosaic),
        (facts.septal, parenchyma.septal_thickening),
        (facts.peribronchial, parenchyma.peribronchial_thickening),
        (facts.bronchiectasis, parenchyma.bronchiectasis),
        (facts.sequela, parenchyma.fibrotic_sequela),
        (facts.ground_glass, lesions.ground_glass),
        (facts.consolidation, lesions.consolidation),
        (facts.nodules, lesions.nodules),
        (facts.arterial_calcification, mediastinum.arterial_calcification),
        (facts.coronary_calcification, mediastinum.coronary_calcification),
        (facts.material, mediastinum.medical_material),
    )
    for fact, step in steps:
        stream = next(draw)
        if fact:
            step(chest, fact, stream)  # type: ignore[arg-type, operator]
    stream = next(draw)
    if facts.atelectasis:
        lesions.atelectasis(chest, facts.atelectasis, facts.effusion, stream)
    stream = next(draw)
    if facts.nodes:
        mediastinum.lymph_nodes(chest, facts.nodes, facts.nodes_mm, stream)
