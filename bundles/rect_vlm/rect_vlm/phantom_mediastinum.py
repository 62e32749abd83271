"""Findings outside the lungs: pericardial fluid, hernia, lymph nodes, calcifications, medical material."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rect_vlm.phantom_chest import (
    AORTA,
    ARCH_BASE,
    ASCENDING,
    DESCENDING,
    ESOPHAGUS,
    FAT,
    MUSCLE,
    STOMACH,
    WATER,
    Chest,
)
from rect_vlm.phantom_facts import Material, Severity, Station
from rect_vlm.phantom_grid import soft, tubes

HEART_SCALE: dict[Severity | None, tuple[float, float]] = {
    None: (0.95, 1.02),
    "mild": (1.11, 1.16),
    "moderate": (1.19, 1.25),
    "severe": (1.28, 1.36),
}
PERICARDIAL_FAT = 4.5  # mm between the heart and the pericardium
STATION_MM: dict[Station, tuple[float, float, float]] = {
    "prevascular": (34, -42, 12),
    "right paratracheal": (26, 4, -26),
    "subcarinal": (-24, 26, -4),
    "right hilar": (-18, 8, -46),
    "left hilar": (-16, 8, 48),
}
PLAQUES: dict[Severity, int] = {"mild": 10, "moderate": 18, "severe": 26}
# Coronary arteries as directions on the heart, along HEART_AXES, from their origin on.
CORONARIES = (
    ((-0.45, -0.75, 0.35), (0.1, -0.95, 0.2), (0.6, -0.75, 0.1), (0.95, -0.3, 0.0)),
    ((-0.5, -0.6, -0.3), (-0.3, -0.2, -0.9), (0.1, 0.4, -0.9), (0.3, 0.8, -0.5)),
    ((-0.6, -0.6, 0.5), (-0.5, -0.3, 0.8), (-0.3, 0.3, 0.9), (0.0, 0.8, 0.6)),
)
# mm; a hardened aorta is a wide one.
AORTA_RADIUS: dict[Severity | None, float] = {None: 14, "mild": 15.5, "moderate": 17, "severe": 18.5}
METAL, CALCIUM = 2600.0, 850.0  # HU


def pericardial_effusion(chest: Chest, mm: int, rng: np.random.Generator) -> None:
    """Fluid around the heart's fat, thickest behind and below; what it fills is no longer lung."""
    z, y, _ = chest.standard.axes
    depth = (y - chest.heart.center[1]) / 50 - (z - chest.heart.center[0]) / 50
    thickness = mm * np.clip(0.85 + 0.15 * depth, 0.7, 1.0)
    cover = soft((thickness / 2 - np.abs(chest.heart_mm - PERICARDIAL_FAT - thickness / 2)), 4)
    free = (chest.lungs | (np.abs(chest.hu - FAT) < 45)) & (chest.wall < 0.99)
    chest.mix((cover * free).astype(np.float32), WATER + rng.normal(0, 4))
    mask = (cover > 0.5) & free
    chest.labels[mask] = 0
    chest.take_from_lungs(mask)
    chest.masks["pericardial_effusion"] = mask


def hiatal_hernia(chest: Chest, mm: int, rng: np.random.Generator) -> None:
    """Stomach above the diaphragm, between heart and spine, with gas over fluid."""
    _, y, _ = chest.standard.axes
    center = np.array([-78.0, 34.0, 12.0]) + rng.normal(0, 4, 3)
    radius = np.array([0.55, 0.45, 0.5]) * mm
    outside = chest.standard.radius(center, radius)
    wall = (outside < 1) & (chest.labels != AORTA) & (chest.heart_mm > 0)
    chest.put(wall, MUSCLE, STOMACH)
    chest.put(wall & (outside < 1 - 5 / radius[1]) & (y < center[1] + rng.uniform(-6, 4)), -930.0)
    chest.take_from_lungs(wall)


def lymph_nodes(chest: Chest, stations: Sequence[Station], mm: int, rng: np.random.Generator) -> None:
    """Enlarged nodes, three to five at each station; the largest is `mm` across its short axis."""
    for number, station in enumerate(stations):
        count = int(rng.integers(3, 6))
        centers = np.array(STATION_MM[station]) + rng.normal(0, 7, (count, 3))
        ends = centers + rng.normal(0, 6, (count, 3))
        radii = mm / 2 * rng.uniform(0.75, 1.0, count)
        radii[0] = mm / 2 if number == 0 else radii[0]
        nodes = tubes(chest.standard, centers, ends, radii)
        chest.raise_to(nodes * (chest.labels != ESOPHAGUS), MUSCLE)
        taken = nodes > 0.5
        chest.labels[taken & chest.lungs] = 0


def arterial_calcification(chest: Chest, severity: Severity, rng: np.random.Generator) -> None:
    """Plaques in the wall of the aortic arch and the descending aorta."""
    count, wall = PLAQUES[severity], AORTA_RADIUS[severity] - 1
    half = float(np.linalg.norm(DESCENDING - ASCENDING)) / 2
    middle, along = (ASCENDING + DESCENDING) / 2, (DESCENDING - ASCENDING) / (2 * half)
    way = rng.uniform(-130, np.pi * half, count)  # mm: below 0 down the descending part, else along the arch
    angle = np.clip(way / half, 0, np.pi)
    turn = rng.uniform(0, 2 * np.pi, count)  # around the aorta
    reach = half + wall * np.cos(turn)
    across = wall * np.sin(turn)
    z = ARCH_BASE + np.minimum(way, 0) + reach * np.sin(angle)
    plane = middle + np.outer(reach * np.cos(angle), along) + np.outer(across, (along[1], -along[0]))
    centers = np.column_stack([z, plane])
    ends = centers + rng.normal(0, (9, 2, 2), (count, 3))
    chest.raise_to(tubes(chest.standard, centers, ends, rng.uniform(3.5, 5.5, count), 2), CALCIUM)


def coronary_calcification(chest: Chest, severity: Severity, rng: np.random.Generator) -> None:
    """Plaques along the coronary arteries on the surface of the heart."""
    share = {"mild": 0.5, "moderate": 0.7, "severe": 0.95}[severity]
    for artery in CORONARIES:
        knots = np.linspace(0, len(artery) - 1, 13)
        course = np.column_stack(
            [np.interp(knots, range(len(artery)), part) for part in zip(*artery, strict=True)]
        )
        path = chest.heart.surface(course, 1.5)
        hard = rng.random(len(path) - 1) < share
        hard[rng.integers(0, 5)] = True
        radii = rng.uniform(3.4, 4.6, int(hard.sum()))
        chest.raise_to(tubes(chest.standard, path[:-1][hard], path[1:][hard], radii, 2), CALCIUM)


def medical_material(chest: Chest, material: Material, rng: np.random.Generator) -> None:
    """A pacemaker, a port with its catheter, or the wires of a sternotomy."""
    z, _, x = chest.standard.axes
    level = int(np.argmin(np.abs(z - 40)))

    def front(mm: float) -> float:  # y of the inner chest wall before x = mm
        return float(chest.front[level, 0, int(np.argmin(np.abs(x - mm)))])

    if material == "sternal wires":
        heights = np.linspace(-55, 48, 6)
        at = front(0) - 7
        starts = np.array([(height, at, -11) for height in heights]) + rng.normal(0, 2, (6, 3))
        chest.raise_to(tubes(chest.standard, starts, np.add(starts, (0, 0, 22)), 3.8), METAL)
        return
    side, size = (1, (28, 9, 28)) if material == "pacemaker" else (-1, (20, 9, 20))
    case = np.array([48.0, front(72 * side) - 16, 72.0 * side]) + rng.normal(0, 4, 3) * (1, 0.2, 1)
    chest.raise_to(soft((1 - chest.standard.radius(case, size)) * 7, 4), METAL)
    way: list[Any] = [case, np.add(case, (34, 14, -14 * side)), (66, -6, -20), (40, -8, -27), (-28, -8, -27)]
    if material == "pacemaker":  # on to the right ventricle
        way += [np.add(chest.heart.center, point) for point in ((-8, -4, -26), (-26, -18, 16))]
    chest.raise_to(tubes(chest.standard, way[:-1], way[1:], 2.8), 0.7 * METAL)
