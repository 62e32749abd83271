"""What a simulated chest radiograph shows: the facts its picture, its report and its labels are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from medbundles.text.labeler import BLANK, NEGATIVE, POSITIVE, UNCERTAIN

from kif_mrg.conditions import CONDITIONS

Side = Literal["right", "left"]  # of the patient
Zone = Literal["upper", "mid", "lower"]
HeartSize = Literal["normal", "mild", "moderate", "severe"]
FluidSize = Literal["small", "moderate", "large"]

SIDES: tuple[Side, ...] = ("right", "left")
ZONES: tuple[Zone, ...] = ("upper", "mid", "lower")
LESION_MM = range(20, 45, 4)
NODULE_MM = 30  # a larger lesion is a mass


@dataclass(frozen=True)
class Effusion:
    """Free pleural fluid on one side or on both."""

    sides: tuple[Side, ...]
    size: FluidSize


@dataclass(frozen=True)
class Lesion:
    """A round nodule or mass; its diameter in mm."""

    side: Side
    zone: Zone
    mm: int

    @property
    def name(self) -> str:
        """What a lesion of this size is called."""
        return "nodule" if self.mm <= NODULE_MM else "mass"


@dataclass(frozen=True)
class Opacity:
    """A hazy opacity of one lung zone."""

    side: Side
    zone: Zone


@dataclass(frozen=True)
class Facts:
    """Everything one radiograph shows; `catheter` is the side a central venous catheter comes from.

    `noise` is the standard deviation of the picture's noise, of full scale. Pneumothorax, fracture and the
    other conditions never occur.
    """

    heart: HeartSize
    effusion: Effusion | None
    lesion: Lesion | None
    opacity: Opacity | None
    catheter: Side | None
    noise: float

    @property
    def normal(self) -> bool:
        """Whether nothing but a catheter is there."""
        return self.heart == "normal" and not (self.effusion or self.lesion or self.opacity)


@dataclass(frozen=True)
class Rates:
    """How often each finding occurs; independent of each other, except that none hides another."""

    enlarged_heart: float = 0.38
    effusion: float = 0.36
    opacity: float = 0.30
    lesion: float = 0.25
    catheter: float = 0.30
    heart_sizes: tuple[float, float, float] = (0.45, 0.33, 0.22)  # mild, moderate, severe
    fluid_sizes: tuple[float, float, float] = (0.45, 0.35, 0.20)  # small, moderate, large
    fluid_sides: tuple[float, float, float] = (0.42, 0.33, 0.25)  # right, left, both


DEFAULT_RATES = Rates()


def draw_facts(rng: np.random.Generator, rates: Rates = DEFAULT_RATES) -> Facts:
    """The facts of one random radiograph."""
    heart: HeartSize = "normal"
    if rng.random() < rates.enlarged_heart:
        heart = ("mild", "moderate", "severe")[rng.choice(3, p=rates.heart_sizes)]
    effusion = None
    if rng.random() < rates.effusion:
        sides = (SIDES[:1], SIDES[1:], SIDES)[rng.choice(3, p=rates.fluid_sides)]
        effusion = Effusion(sides, ("small", "moderate", "large")[rng.choice(3, p=rates.fluid_sizes)])
    free = visible_zones(heart, effusion)
    opacity = lesion = None
    if rng.random() < rates.opacity:
        opacity = Opacity(*free.pop(rng.integers(len(free))))
    if rng.random() < rates.lesion:
        lesion = Lesion(*free[rng.integers(len(free))], int(rng.choice(LESION_MM)))
    catheter = SIDES[int(rng.random() > 0.7)] if rng.random() < rates.catheter else None
    return Facts(heart, effusion, lesion, opacity, catheter, round(float(rng.uniform(0.02, 0.04)), 4))


def visible_zones(heart: HeartSize, effusion: Effusion | None) -> list[tuple[Side, Zone]]:
    """The lung zones that neither an enlarged heart nor pleural fluid covers; never fewer than two."""
    hidden: set[tuple[Side, Zone]] = set() if heart == "normal" else {("left", "lower")}
    if effusion is not None and effusion.size != "small":
        covered = ZONES[2:] if effusion.size == "moderate" else ZONES[1:]
        hidden |= {(side, zone) for side in effusion.sides for zone in covered}
    return [(side, zone) for side in SIDES for zone in ZONES if (side, zone) not in hidden]


def fact_labels(facts: Facts) -> list[int]:
    """State of every condition (C,) as the report gives it; what the report leaves out is blank.

    A hazy opacity leaves its cause open: in a lower zone atelectasis, elsewhere pneumonia is uncertain.
    """
    absent_or = {True: POSITIVE, False: NEGATIVE}
    states = {
        "enlarged_cardiomediastinum": NEGATIVE,
        "cardiomegaly": absent_or[facts.heart != "normal"],
        "lung_opacity": absent_or[facts.opacity is not None],
        "lung_lesion": absent_or[facts.lesion is not None],
        "pneumothorax": NEGATIVE,
        "pleural_effusion": absent_or[facts.effusion is not None],
        "bone_spine_abnormal": NEGATIVE,
    }
    if facts.opacity is None:
        states["consolidation"] = NEGATIVE
    else:
        states["atelectasis" if facts.opacity.zone == "lower" else "pneumonia"] = UNCERTAIN
    if facts.catheter is not None:
        states["support_devices"] = POSITIVE
    if facts.normal:
        states["no_finding"] = POSITIVE
    return [states.get(condition, BLANK) for condition in CONDITIONS]
