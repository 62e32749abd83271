"""The picture of a simulated chest radiograph: postero-anterior, patient's right on the left of the picture.

Coordinates are u (left to right) and v (top to bottom), both -1..1 over the picture, which is 360 mm wide.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from kif_mrg.phantom_facts import Effusion, Facts, Lesion, Opacity, Side, Zone

Picture = NDArray[np.float64]  # (H,W), 0 black to 1 white

MM = 2 / 360  # one millimetre in coordinates
THORAX = 0.78  # half the inner width of the chest
# Heart width / inner chest width; between two sizes there is a gap, so that a picture shows one of them.
HEART_RATIO = {"normal": (0.42, 0.48), "mild": (0.53, 0.57), "moderate": (0.61, 0.64), "severe": (0.68, 0.71)}
FLUID_LEVEL = {"small": 0.31, "moderate": 0.10, "large": -0.28}  # v at the chest wall
ZONE_U = {"upper": (0.30, 0.48), "mid": (0.38, 0.58), "lower": (0.52, 0.62)}  # |u| of what lies in a zone
ZONE_V = {"upper": (-0.48, -0.32), "mid": (-0.18, 0.0), "lower": (0.16, 0.28)}
SIGN: dict[Side, int] = {"right": -1, "left": 1}


def draw_picture(facts: Facts, rng: np.random.Generator, size: int = 96) -> NDArray[np.uint8]:
    """The radiograph (size,size) of `facts`; `rng` gives anatomy, exact positions, exposure and noise.

    Raises ValueError when `size` is too small to show a lesion.
    """
    if size < 64:
        raise ValueError(f"size must be at least 64 pixels to show a lesion, got {size}")
    # A stream of its own for each part: without a finding, the rest of the picture stays as it is.
    anatomy, heart, opacity, lesion, fluid, film = rng.spawn(6)
    axis = (np.arange(size) + 0.5) * 2 / size - 1
    scale, shift = anatomy.normal(1.0, 0.015), anatomy.normal(0.0, 0.01, 2)
    u, v = np.meshgrid((axis - shift[0]) / scale, (axis - shift[1]) / scale)
    pixel = 2 / size / scale
    picture, lungs = _chest(u, v, pixel, anatomy)
    if facts.opacity is not None:
        picture += _haze(facts.opacity, u, v, opacity) * lungs[facts.opacity.side]
    if facts.lesion is not None:
        picture += 0.45 * _lesion(facts.lesion, u, v, pixel, lesion)
    picture = _cover(picture, _heart(facts.heart, u, v, pixel, heart), 0.74)
    if facts.effusion is not None:
        for side in facts.effusion.sides:
            picture = _cover(picture, _fluid(facts.effusion, u, v, pixel, fluid) * lungs[side], 0.63)
    picture = _cover(picture, _mediastinum(u, v, pixel), 0.76)
    if facts.catheter is not None:
        picture = _cover(picture, _catheter(facts.catheter, u, v, pixel), 1.0)
    picture = picture * film.uniform(0.96, 1.04) + film.normal(0.0, 0.01)
    picture = ndimage.gaussian_filter(picture, 0.5 * size / 96) + film.normal(0.0, facts.noise, picture.shape)
    return np.round(np.clip(picture, 0.0, 1.0) * 255).astype(np.uint8)


def _soft(inside: Picture, pixel: float) -> Picture:
    """Mask from a distance that is positive inside, one pixel wide at the edge."""
    return np.clip(inside / pixel + 0.5, 0.0, 1.0)


def _cover(picture: Picture, mask: Picture, value: float) -> Picture:
    # A denser shadow hides a fainter one and never the other way round.
    return np.maximum(picture, picture + mask * (value - picture))


def _chest_wall(u: Picture, v: Picture, pixel: float) -> Picture:
    """Inside of the rib cage: egg-shaped above, straight below."""
    above = np.minimum(v - 0.30, 0.0) / 1.12
    return _soft(THORAX * np.sqrt(np.clip(1 - above**2, 0, None)) - np.abs(u), pixel)


def _dome(u: Picture, side: Side) -> Picture:
    """v of the diaphragm; the right dome stands higher, both fall towards the chest wall."""
    return (0.46 if side == "right" else 0.53) + 0.9 * (np.abs(u) - 0.36) ** 2


def _chest(
    u: Picture, v: Picture, pixel: float, rng: np.random.Generator
) -> tuple[Picture, dict[Side, Picture]]:
    """Body, lungs with their vessels, abdomen below the diaphragm; also the lung masks."""
    picture = 0.03 + 0.55 * np.maximum(_body(u, v, pixel), _soft(0.24 - np.abs(u), pixel) * (v < -0.5))
    wall = _chest_wall(u, v, pixel)
    lungs = {
        side: wall * _soft(_dome(u, side) - v, pixel) * _soft(SIGN[side] * u - 0.05, pixel) for side in SIGN
    }
    both = lungs["right"] + lungs["left"]
    picture += 0.04 * (wall - both) * (v > 0.3)
    picture -= both * (0.38 + 0.05 * np.clip(np.abs(u) - 0.3, 0, None))
    hilum = np.exp(-(((np.abs(u) - 0.18) / 0.14) ** 2) - ((v + 0.05) / 0.22) ** 2)
    texture = ndimage.gaussian_filter(rng.standard_normal(u.shape), 0.02 / pixel)
    picture += both * (0.09 * hilum + 0.012 * texture / texture.std())
    return picture + _bones(u, v, pixel) * (0.4 + both), lungs


def _body(u: Picture, v: Picture, pixel: float) -> Picture:
    return _soft(1 - np.sqrt((u / 0.97) ** 2 + ((v - 0.65) / 1.5) ** 4), pixel)


def _bones(u: Picture, v: Picture, pixel: float) -> Picture:
    """Ribs and clavicles."""
    ribs = np.zeros_like(u)
    for top in np.arange(-0.95, 0.6, 0.17):
        ribs += np.exp(-(((v - top - 0.55 * (np.abs(u) - 0.25) ** 2) / 0.025) ** 2))
    clavicles = np.exp(-(((v + 0.58 + 0.22 * (np.abs(u) - 0.1)) / 0.03) ** 2))
    clavicles *= _soft(0.35 - np.abs(np.abs(u) - 0.42), 3 * pixel)
    return 0.03 * ribs * _chest_wall(u, v, pixel) + 0.12 * clavicles * _body(u, v, pixel)


def _mediastinum(u: Picture, v: Picture, pixel: float) -> Picture:
    """Spine, great vessels and aortic knob."""
    column = _soft(0.12 + 0.05 * np.clip(-v, 0, 1) - np.abs(u), pixel)
    knob = _soft(0.1 - np.hypot(u - 0.12, v + 0.3), pixel)
    return np.maximum(column, knob) * _soft(v + 0.85, 4 * pixel)


def _heart(size: str, u: Picture, v: Picture, pixel: float, rng: np.random.Generator) -> Picture:
    """Tilted ellipse, two thirds of it on the patient's left."""
    width = rng.uniform(*HEART_RATIO[size]) * 2 * THORAX
    tilt, short = 0.45, 0.22 + 0.13 * width
    long = np.sqrt((width / 2) ** 2 - (short * np.sin(tilt)) ** 2) / np.cos(tilt)
    du, dv = u - 0.17 * width, v - 0.28
    along, across = du * np.cos(tilt) + dv * np.sin(tilt), dv * np.cos(tilt) - du * np.sin(tilt)
    radius = np.sqrt((along / long) ** 2 + (across / short) ** 2)
    return _soft((1 - radius) * min(long, short), pixel)


def _fluid(effusion: Effusion, u: Picture, v: Picture, pixel: float, rng: np.random.Generator) -> Picture:
    """Everything below a meniscus that climbs towards the chest wall."""
    level = FLUID_LEVEL[effusion.size] + rng.normal(0.0, 0.015)
    fall = 0.7 if effusion.size == "small" else 0.35
    surface = level + fall * np.clip(THORAX - np.abs(u), 0, None)
    return _soft(v - surface, 2 * pixel)


def _center(side: Side, zone: Zone, rng: np.random.Generator) -> tuple[float, float]:
    return SIGN[side] * rng.uniform(*ZONE_U[zone]), rng.uniform(*ZONE_V[zone])


def _haze(opacity: Opacity, u: Picture, v: Picture, rng: np.random.Generator) -> Picture:
    center = _center(opacity.side, opacity.zone, rng)
    patch = np.exp(-(((u - center[0]) / 0.17) ** 2) - ((v - center[1]) / 0.15) ** 2)
    return rng.uniform(0.26, 0.32) * patch


def _lesion(lesion: Lesion, u: Picture, v: Picture, pixel: float, rng: np.random.Generator) -> Picture:
    center = _center(lesion.side, lesion.zone, rng)
    return _soft(lesion.mm / 2 * MM - np.hypot(u - center[0], v - center[1]), pixel)


def _catheter(side: Side, u: Picture, v: Picture, pixel: float) -> Picture:
    """A line from below the clavicle of its side to the superior vena cava, right of the midline."""
    t = np.linspace(0.0, 1.0, 100)[:, None]
    start, bend, tip = (SIGN[side] * 0.74, -0.58), (SIGN[side] * 0.1 - 0.05, -0.88), (-0.1, 0.02)
    path = (1 - t) ** 2 * start + 2 * t * (1 - t) * np.array(bend) + t**2 * np.array(tip)
    nearest, _ = KDTree(path).query(np.stack([u, v], axis=-1))
    return _soft(3.5 * MM - nearest, pixel)
