"""Findings spread through the lungs: emphysema, mosaic attenuation, septa, bronchi, fibrotic sequelae."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rect_vlm.phantom_chest import AIR, HILUM, SIGN, Chest
from rect_vlm.phantom_facts import SEVERITIES, Lobe, Severity, Side, side_of
from rect_vlm.phantom_grid import Mask, tubes

STRENGTH: dict[Severity, float] = dict(zip(SEVERITIES, (0.75, 1.0, 1.3), strict=True))
Points = NDArray[np.float64]
AXES = np.vstack([np.eye(3), -np.eye(3)])


def place(chest: Chest, where: Mask, reach: float, rng: np.random.Generator) -> Points:
    """A random point (3,) in `where`, in mm of the patient, that has `reach` mm of it on most sides.

    Raises ValueError when `where` is empty.
    """
    inside = np.flatnonzero(where)
    if len(inside) == 0:
        raise ValueError("a finding needs a place in the lungs, got none: its lobe is hidden")
    points = chest.grid.points(rng.choice(inside, size=48))
    probes = points[:, None] + reach * AXES  # (48,6,3)
    index = np.rint((probes - chest.grid.origin) / chest.grid.spacing).astype(int)
    z, y, x = np.moveaxis(np.clip(index, 0, np.subtract(where.shape, 1)), -1, 0)
    return points[where[z, y, x].sum(axis=1).argmax()]


def emphysema(chest: Chest, severity: Severity, rng: np.random.Generator) -> None:
    """Low density, most in the upper lobes, and bullae below the pleura of the apices."""
    z, _, _ = chest.standard.axes
    strength = STRENGTH[severity]
    patches = np.clip(0.75 + 0.5 * chest.grid.smooth_noise(22, rng), 0, 2)
    loss = 120 * strength * patches * np.clip((z + 90) / 110, 0.25, 1)
    chest.hu -= np.where(chest.lungs, np.minimum(loss, np.maximum(chest.hu - AIR, 0)), 0).astype(np.float32)
    for side in SIGN:
        apex = chest.side[side] & (z > 25) & (chest.wall > 0.72)
        count = int(rng.integers(1, 3 + 2 * SEVERITIES.index(severity)))
        centers = [place(chest, apex, 6, rng) for _ in range(count)]
        bullae = tubes(chest.grid, centers, centers, rng.uniform(8, 12 * strength, count))
        chest.mix(bullae * chest.side[side], -985.0)


def mosaic(chest: Chest, severity: Severity, rng: np.random.Generator) -> None:
    """A patchwork of denser and darker areas of a few centimetres."""
    patches = np.tanh(2.5 * chest.grid.smooth_noise(34, rng))
    air = chest.lungs & (chest.hu < -650)
    chest.hu += np.where(air, 105 * STRENGTH[severity] * patches + 15, 0).astype(np.float32)


def septal_thickening(chest: Chest, severity: Severity, rng: np.random.Generator) -> None:
    """A net of thin lines, most at the bases and below the pleura."""
    z, _, _ = chest.standard.axes
    net = np.exp(-np.square(chest.grid.smooth_noise(15, rng) / 0.22))
    near = np.clip((30 - z) / 110, 0.3, 1) * np.clip((chest.wall - 0.35) / 0.3, 0.2, 1)
    chest.raise_to((0.72 * STRENGTH[severity] * net * near * chest.lungs).astype(np.float32), -120.0)


def peribronchial_thickening(chest: Chest, severity: Severity, rng: np.random.Generator) -> None:
    """Cuffs of soft tissue around the central bronchi of both lungs."""
    for side in SIGN:
        starts, ends, share = _bronchi(chest, side, 14, rng)
        outer = tubes(chest.standard, starts, ends, (9.5 - 3 * share) * STRENGTH[severity] ** 0.5)
        lumen = tubes(chest.standard, starts, ends, 3.4 - 1.6 * share)
        chest.raise_to(outer * chest.side[side], -60.0)
        chest.mix(lumen * chest.side[side], -930.0)


def bronchiectasis(chest: Chest, lobes: Sequence[Lobe], rng: np.random.Generator) -> None:
    """Wide bronchi with a thick wall in clusters: rings across, tram lines along."""
    for lobe in lobes:
        where = chest.lobe(lobe)
        center = place(chest, where, 30, rng)
        outward = center - HILUM[side_of(lobe)]
        outward = outward / np.linalg.norm(outward)
        count = int(rng.integers(10, 15))
        starts = center + rng.normal(0, 17, (count, 3))
        ends = starts + 22 * outward + rng.normal(0, 7, (count, 3))
        width = rng.uniform(9, 13, count)
        chest.raise_to(tubes(chest.grid, starts, ends, width) * where, 0.0)
        chest.mix(tubes(chest.grid, starts, ends, width - 3.6) * where, -985.0)


def fibrotic_sequela(chest: Chest, sides: Sequence[Side], rng: np.random.Generator) -> None:
    """Thick pleura of the apex with bands that run down from it and small calcified scars."""
    z, _, _ = chest.standard.axes
    for side in sides:
        lung = chest.side[side]
        edge = 0.74 + 0.09 * chest.grid.smooth_noise(14, rng)
        cap = np.clip((chest.wall - edge) / 0.07, 0, 1) * np.clip((z - 32) / 22, 0, 1)
        chest.raise_to((cap * lung).astype(np.float32), -60.0)
        count = int(rng.integers(9, 14))
        starts = np.array([place(chest, lung & (z > 42), 3, rng) for _ in range(count)])
        ends = starts + rng.normal((-26, 6, 0), (7, 9, 9), (count, 3))
        chest.raise_to(tubes(chest.grid, starts, ends, rng.uniform(2.5, 4.0, count)) * lung, 10.0)
        chest.raise_to(tubes(chest.grid, starts[:2], starts[:2], 3.5) * lung, 600.0)


def _bronchi(chest: Chest, side: Side, count: int, rng: np.random.Generator) -> tuple[Points, Points, Points]:
    """Central bronchi as lines: starts and ends (P,3), and how far along each lies (P,)."""
    tips = chest.standard.points(rng.choice(np.flatnonzero(chest.side[side]), size=count))
    share = np.linspace(0.12, 0.85, 6)
    paths = HILUM[side] + share[:, None, None] * (tips - HILUM[side])  # (6, count, 3)
    along = np.repeat((share[:-1] - share[0]) / (share[-1] - share[0]), count)
    return paths[:-1].reshape(-1, 3), paths[1:].reshape(-1, 3), along
