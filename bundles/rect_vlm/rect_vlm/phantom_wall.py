"""The wall of a simulated chest: fat, muscle, ribs, sternum, scapulae and spine."""

from __future__ import annotations

import numpy as np

from rect_vlm.phantom_chest import (
    BONE,
    FAT,
    MUSCLE,
    RIB_LEFT_1,
    RIB_RIGHT_1,
    SCAPULA_LEFT,
    SCAPULA_RIGHT,
    SPINAL_CORD,
    STERNUM,
    VERTEBRA_T12,
    Chest,
)


def draw_wall(chest: Chest, rng: np.random.Generator) -> None:
    """Draw the wall; `rng` gives the thickness of the fat and the height of the ribs."""
    z, y, x = chest.standard.axes
    fat = rng.uniform(8, 24)
    for hu, extra in ((FAT, fat), (MUSCLE, 0.0)):
        outline = np.abs(x / (150 + extra)) ** 2.5 + np.abs((y - 6) / (112 + 0.8 * extra)) ** 2.5
        chest.put(np.broadcast_to(outline < 1, chest.hu.shape), hu)
    chest.put(chest.wall < 1, FAT)
    number = (92 + rng.uniform(-5, 5) - z + 0.4 * y) / 22  # of the rib; its front end lies lower
    ribs = (chest.wall > 1.005) & (chest.wall < 1.09) & (np.mod(number, 1) < 0.45)
    ribs &= (number > 0) & (number < 12) & ~((np.abs(x) < 36) & (y < 0))
    chest.put(ribs, BONE)
    for sign, first in ((-1, RIB_RIGHT_1), (1, RIB_LEFT_1)):
        level = np.clip(np.floor(number), 0, 11).astype(np.uint8) + np.uint8(first)
        np.copyto(chest.labels, level, where=ribs & (sign * x > 0))
    sternum = (np.abs(x) < 18) & (y < chest.front - 1) & (y > chest.front - 13) & (z < 58) & (z > -75)
    chest.put(sternum, 190.0, STERNUM)
    for sign, label in ((-1, SCAPULA_RIGHT), (1, SCAPULA_LEFT)):
        blade = chest.standard.radius((50, 84, sign * 100), (50, 7, 28)) < 1
        chest.put(blade & (chest.wall > 1.09), BONE, label)
    _draw_spine(chest)


def _draw_spine(chest: Chest) -> None:
    z, y, x = chest.standard.axes
    level = np.clip(np.floor((z + 132) / 22), -4, 11).astype(int)  # 0 is T12
    body = np.broadcast_to(np.square(x / 21) + np.square((y - 72) / 18) < 1, chest.hu.shape)
    labels = np.broadcast_to(VERTEBRA_T12 + level, body.shape).astype(np.uint8)
    np.copyto(chest.labels, labels, where=body)
    disc = np.mod(z + 132, 22) < 4
    np.copyto(chest.hu, np.where(disc, np.float32(85), np.float32(210)), where=body)
    arch = (np.abs(x) < 26) & (np.abs(y - 100) < 5) | (np.abs(x) < 4) & (np.abs(y - 110) < 14)
    chest.put(np.broadcast_to(arch, chest.hu.shape) & ~disc, BONE)
    canal = np.square(x / 10) + np.square((y - 94) / 7) < 1
    chest.put(np.broadcast_to(canal, chest.hu.shape), 30.0, SPINAL_CORD)
