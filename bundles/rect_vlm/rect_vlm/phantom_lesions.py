"""Findings in one place of the lungs and pleura: fluid, ground glass, consolidation, atelectasis, nodules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rect_vlm.phantom_chest import HILUM, MUSCLE, WATER, Chest
from rect_vlm.phantom_facts import LOWER, Fluid, Focus, Lobe, side_of
from rect_vlm.phantom_grid import Volume, soft, tubes
from rect_vlm.phantom_parenchyma import place


def pleural_effusion(chest: Chest, fluid: Fluid, rng: np.random.Generator) -> None:
    """Fluid behind the lungs, thickest at the base; what it fills is no longer lung."""
    mask = np.zeros(chest.grid.shape, dtype=bool)
    for side in fluid.sides:
        cover = soft(_fluid_mm(chest, fluid), 4) * chest.side[side]
        chest.raise_to(cover, WATER + rng.normal(0, 4))
        mask |= cover > 0.5
    chest.take_from_lungs(mask)
    chest.labels[mask] = 0
    chest.masks["pleural_effusion"] = mask


def atelectasis(chest: Chest, lobes: Sequence[Lobe], fluid: Fluid | None, rng: np.random.Generator) -> None:
    """Airless lung: the part of a lower lobe that fluid presses on, otherwise a thick plate."""
    for lobe in lobes:
        side, where = side_of(lobe), chest.lobe(lobe)
        if fluid is not None and side in fluid.sides and lobe == LOWER[side]:
            layer = soft(_fluid_mm(chest, fluid) + rng.uniform(15, 22), 4)
            chest.raise_to(layer * where, 55.0)
        else:
            chest.raise_to(_plate(chest, place(chest, where, 14, rng), rng) * where, MUSCLE)


def ground_glass(chest: Chest, foci: Sequence[Focus], rng: np.random.Generator) -> None:
    """Hazy areas through which the vessels still show."""
    mask = np.zeros(chest.grid.shape, dtype=bool)
    for focus in foci:
        cover = _blob(chest, focus, 8, rng)
        chest.raise_to(cover, -600 + 45 * chest.grid.smooth_noise(10, rng))
        mask |= cover > 0.5
    chest.masks["ground_glass_opacity"] = mask


def consolidation(chest: Chest, foci: Sequence[Focus], rng: np.random.Generator) -> None:
    """Airless areas that keep their size, with open bronchi in them."""
    mask = np.zeros(chest.grid.shape, dtype=bool)
    for focus in foci:
        cover = _blob(chest, focus, 4, rng)
        chest.raise_to(cover, rng.normal(32, 6))
        inside = cover > 0.5
        mask |= inside
        tips = chest.grid.points(rng.choice(np.flatnonzero(inside), size=4))
        starts = tips + 0.35 * (HILUM[side_of(focus.lobe)] - tips)
        chest.mix(tubes(chest.grid, starts, tips, 2.6) * inside, -700.0)
    chest.masks["consolidation"] = mask


def nodules(chest: Chest, foci: Sequence[Focus], rng: np.random.Generator) -> None:
    """Round lesions of soft tissue; their edges are those of the slices."""
    mask = np.zeros(chest.grid.shape, dtype=bool)
    for focus in foci:
        where = chest.lobe(focus.lobe) & ~mask
        # Not in the middle of a voxel, or all nodules would meet the slices alike.
        center = place(chest, where, focus.mm / 2 + 3, rng) + rng.uniform(-0.5, 0.5, 3) * chest.grid.spacing
        cover = tubes(chest.grid, center, center, focus.mm / 2, samples=3) * chest.side[side_of(focus.lobe)]
        chest.raise_to(cover, rng.normal(45, 10))
        mask |= cover > 0.5
    chest.masks["lung_nodule"] = mask


def _fluid_mm(chest: Chest, fluid: Fluid) -> Volume:
    """How deep (D,H,W) in mm a place lies under the surface of the fluid."""
    z, y, _ = chest.standard.axes
    top = -62 + 2.2 * fluid.mm
    thickness = fluid.mm * np.clip((top - z) / (top + 100), 0, 1.15)
    return np.where(thickness > 0, y - chest.back + thickness, -99.0).astype(np.float32)


def _plate(chest: Chest, center: NDArray[np.float64], rng: np.random.Generator) -> Volume:
    """A disc of about 11 x 9 x 3 cm, nearly level."""
    z, y, x = (axis - np.float32(c) for axis, c in zip(chest.grid.axes, center, strict=True))
    tilt = rng.normal(0, 0.25, 2)
    height = z - tilt[0] * y - tilt[1] * x
    across = np.sqrt(np.square(y / 44) + np.square(x / 55) + np.square(height / 14))
    return soft((1 - across) * 14, 4).astype(np.float32)


def _blob(chest: Chest, focus: Focus, edge: float, rng: np.random.Generator) -> Volume:
    """An uneven ball cut off at the borders of its lobe."""
    where = chest.lobe(focus.lobe)
    center = place(chest, where, focus.mm / 3, rng)
    rough = 1 + 0.12 * chest.grid.smooth_noise(20, rng)
    distance = chest.grid.radius(center, (1, 1, 1))
    return soft(focus.mm / 2 * rough - distance, edge) * where
