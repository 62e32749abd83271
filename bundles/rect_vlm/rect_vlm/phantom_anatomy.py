"""The normal thorax of a simulated patient: chest wall, lungs with five lobes, mediastinum, upper abdomen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rect_vlm.phantom_chest import (
    AORTA,
    ARCH_BASE,
    ASCENDING,
    DESCENDING,
    ESOPHAGUS,
    FAT,
    HEART,
    HEART_RADII,
    HILUM,
    LIVER,
    LOBE_ID,
    MUSCLE,
    PULMONARY_VEIN,
    SIGN,
    SPLEEN,
    STOMACH,
    TRACHEA,
    VENA_CAVA,
    Chest,
    Heart,
)
from rect_vlm.phantom_facts import Side
from rect_vlm.phantom_grid import Grid, Volume, tubes
from rect_vlm.phantom_wall import draw_wall


@dataclass(frozen=True)
class Shape:
    """What findings do to the anatomy: size of the heart (1 is normal), whether there is contrast in the
    blood, radius of the aorta in mm, and how many mm the diaphragm of each side is raised."""

    heart: float
    contrast: bool
    aorta_radius: float
    lift: dict[Side, float]


def draw_anatomy(grid: Grid, shape: Shape, rng: np.random.Generator) -> Chest:
    """A chest without findings but of the given shape; `rng` draws the patient's build."""
    build, skeleton, lungs, belly = rng.spawn(4)
    standard = grid.stretched(1 / build.normal(1.0, (0.025, 0.03, 0.03)))
    wall, front, back = _cavity(standard, build)
    # A larger heart grows to the left, forward and down.
    grown = (shape.heart - 1) * np.array([-18, -4, 16])
    center = np.array([-58.0, -24.0, 20.0]) + build.normal(0, 2, 3) + grown
    heart = Heart(center, np.array(HEART_RADII) * shape.heart * build.normal(1, 0.03, 3))
    chest = Chest(grid, standard, heart, heart.distance(standard), wall, front, back)
    draw_wall(chest, skeleton)
    _draw_cavity(chest, shape.lift, belly)
    _draw_lungs(chest, lungs)
    _draw_mediastinum(chest, shape)
    return chest


def _cavity(grid: Grid, rng: np.random.Generator) -> tuple[Volume, Volume, Volume]:
    z, y, x = grid.axes
    dome = np.sqrt(np.clip(1 - np.square(np.maximum(z + 50, 0) / 166), 1e-3, 1))
    width, depth = 126 * rng.normal(1, 0.02) * dome, 88 * rng.normal(1, 0.03) * dome**0.8
    middle = 4 + 0.12 * np.maximum(z, 0)
    across = np.abs(x / width) ** 2.4
    wall = np.sqrt(across + np.square((y - middle) / depth)).astype(np.float32)
    reach = depth * np.sqrt(np.clip(1 - across, 0, 1))
    return wall, (middle - reach).astype(np.float32), (middle + reach).astype(np.float32)


def _draw_cavity(chest: Chest, lift: dict[Side, float], rng: np.random.Generator) -> None:
    """Part the chest cavity into lungs, mediastinal fat and, below the diaphragm, abdomen."""
    z, y, x = chest.standard.axes
    inside = chest.wall < 1
    # Half the width of the mediastinum: less at the apices, behind the sternum and before the spine.
    middle = 25 - 7 * np.clip((z - 40) / 60, 0, 1) - 12 * np.clip((-y - 35) / 35, 0, 1)
    middle = middle - 9 * np.clip((y - 14) / 18, 0, 1)
    clear = inside & (chest.heart_mm > 4.5) & (np.square(x / 25) + np.square((y - 73) / 27) > 1)
    for side, sign in SIGN.items():
        top = (
            (-74 if side == "right" else -84) + rng.normal(0, 5) + lift[side]
        )  # the right dome stands higher
        dome = top - 0.0045 * np.square(np.abs(x) - 60) - 0.0062 * np.square(y + 12)
        chest.side[side] = clear & (sign * x > middle) & (z > dome)
        below = inside & (sign * x >= 0) & (z <= dome)
        if side == "right":
            chest.put(below & (chest.standard.radius((-165, -8, -58), (100, 84, 112)) < 1), 56.0, LIVER)
            continue
        lobe = below & (chest.standard.radius((-118, -30, 10), (34, 45, 50)) < 1)
        chest.put(lobe, 56.0, LIVER)
        stomach = below & (chest.standard.radius((-150, -12, 62), (62, 48, 42)) < 1) & ~lobe
        chest.put(stomach, 28.0, STOMACH)
        chest.put(stomach & (y < -12 + rng.uniform(-22, 2)), -960.0)
        chest.put(below & (chest.standard.radius((-150, 42, 92), (48, 38, 28)) < 1), 50.0, SPLEEN)


def _draw_lungs(chest: Chest, rng: np.random.Generator) -> None:
    """Lobes, parenchyma, its dependent part, and the vessels that branch from the hila."""
    z, y, _ = chest.standard.axes
    oblique = 44 + 1.12 * (y - 62) + rng.normal(0, 4)  # z of the fissure
    horizontal = -26 + rng.normal(0, 5)
    right, left = chest.side["right"], chest.side["left"]
    lower = z < oblique
    for lobe, where in (
        ("right upper", right & ~lower & (z >= horizontal)),
        ("right middle", right & ~lower & (z < horizontal)),
        ("right lower", right & lower),
        ("left upper", left & ~lower),
        ("left lower", left & lower),
    ):
        np.copyto(chest.labels, np.uint8(LOBE_ID[lobe]), where=where)  # type: ignore[index]
    lungs = chest.lungs
    air = rng.normal(-852, 16) + 0.25 * y + 10 * chest.grid.smooth_noise(12, rng)
    if rng.random() < 0.3:  # not disease: lying down, the back of the lungs is less inflated
        air = air + rng.uniform(70, 140) * np.clip((y - chest.back + 14) / 10, 0, 1)
    np.copyto(chest.hu, air.astype(np.float32), where=lungs)
    for side in SIGN:
        chest.raise_to(_vessels(chest, side, rng) * chest.side[side], MUSCLE)


def _vessels(chest: Chest, side: Side, rng: np.random.Generator, count: int = 14) -> Volume:
    """Arteries and veins of one lung: bent lines from the hilum to random places, thinner and thinner."""
    inside = np.flatnonzero(chest.side[side])
    tips = chest.standard.points(rng.choice(inside, size=count))
    share = np.linspace(0, 1, 6)[:, None, None]
    bend = rng.normal(0, 7, (6, count, 3)) * np.sin(np.pi * share)
    paths = HILUM[side] + share * (tips - HILUM[side]) + bend  # (6, count, 3)
    radii = np.repeat(6.0 * (1 - share[:-1, :, 0]) ** 1.3 + 1.3, count)
    return tubes(chest.standard, paths[:-1].reshape(-1, 3), paths[1:].reshape(-1, 3), radii)


def _draw_mediastinum(chest: Chest, shape: Shape) -> None:
    """Heart, great vessels, airways and esophagus."""
    z, y, x = chest.standard.axes
    blood = 165.0 if shape.contrast else MUSCLE
    inside = chest.wall < 1
    chest.put((chest.heart_mm > 0) & (chest.heart_mm < 4.5) & inside, FAT)
    chest.put((chest.heart_mm <= 0) & inside, 85.0 if shape.contrast else MUSCLE + 2, HEART)
    if shape.contrast:
        chest.put((chest.heart_mm < -10) & inside, blood)
    arteries = tubes(
        chest.standard,
        [(-18, -26, 22), (-8, -22, 16), (-6, -8, 6), (-6, -8, 6)],
        [(-8, -22, 16), (-2, -8, 8), (-10, 10, 44), (-8, 4, -44)],
        [15, 14, 11, 11],
    )
    chest.mix(arteries, blood)
    veins = tubes(chest.standard, [(-32, 12, 20), (-32, 12, -16)], [(-34, 14, 48), (-34, 14, -46)], 8)
    chest.mix(veins, blood)
    np.copyto(chest.labels, np.uint8(PULMONARY_VEIN), where=veins > 0.5)
    cava = (np.square(x + 27) + np.square(y + 8) < 81) & (z > -35) & (z < 62)
    chest.put(cava, blood, VENA_CAVA)
    gullet = (np.square((x - 5) / 9) + np.square((y - 34) / 7) < 1) & (z > -110)
    chest.put(gullet, 35.0, ESOPHAGUS)
    chest.put(aorta_mm(chest.standard) < shape.aorta_radius, blood, AORTA)
    branches = tubes(
        chest.standard,
        [(50, 0, -6), (52, 8, 4), (50, 18, 14)],
        [(130, -6, -18), (130, -4, 14), (130, 8, 26)],
        6.5,
    )
    chest.mix(branches, blood)
    airway = tubes(
        chest.standard,
        [(150, 14, 0), (0, 12, 0), (0, 12, 0)],
        [(0, 12, 0), (-22, 14, -38), (-26, 14, 40)],
        [9, 7, 6.5],
    )
    chest.mix(airway, -990.0)
    np.copyto(chest.labels, np.uint8(TRACHEA), where=airway > 0.5)
    lobes = (chest.labels >= LOBE_ID["left upper"]) & (chest.labels <= LOBE_ID["right lower"])
    for side in SIGN:
        chest.side[side] &= lobes


def aorta_mm(grid: Grid) -> Volume:
    """Distance (D,H,W) in mm from the middle of the aorta."""
    z, y, x = grid.axes
    width = float(np.linalg.norm(DESCENDING - ASCENDING))
    along, middle = (DESCENDING - ASCENDING).tolist(), ((ASCENDING + DESCENDING) / 2).tolist()
    u = ((y - middle[0]) * along[0] + (x - middle[1]) * along[1]) / width  # in the plane of the arch
    v = ((y - middle[0]) * along[1] - (x - middle[1]) * along[0]) / width  # across it
    bent = np.sqrt(np.square(u) + np.square(np.maximum(z - ARCH_BASE, 0))) - np.float32(width / 2)
    distance = np.sqrt(np.square(bent) + np.square(v))
    low = (u < 0) & (z < -30)  # where the ascending part leaves the heart
    return np.where(low, np.float32(1e3), distance)
