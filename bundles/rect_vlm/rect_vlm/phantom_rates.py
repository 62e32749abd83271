"""How often the findings of simulated chest CTs occur, and which come together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from rect_vlm.phantom_facts import (
    LOBES,
    LOWER,
    MATERIALS,
    SEVERITIES,
    SIDES,
    STATIONS,
    Facts,
    Fluid,
    Focus,
    Lobe,
    Severity,
    Side,
)

Choice = TypeVar("Choice")

# What makes findings come together: how often each is at work, and the chance of a finding under it.
# "always" is the chance without any. The chances add up as independent causes do (noisy or).
CAUSES = {"heart failure": 0.20, "infection": 0.25, "age": 0.35, "airways": 0.25, "tumour": 0.20}
CHANCES: dict[str, dict[str, float]] = {
    "Medical material": {"always": 0.06, "age": 0.15, "tumour": 0.30, "heart failure": 0.20},
    "Arterial wall calcification": {"always": 0.05, "age": 0.75, "airways": 0.10},
    "Cardiomegaly": {"always": 0.05, "heart failure": 0.70, "age": 0.12},
    "Pericardial effusion": {"always": 0.06, "heart failure": 0.35, "tumour": 0.20, "infection": 0.08},
    "Coronary artery wall calcification": {"always": 0.04, "age": 0.70, "heart failure": 0.15},
    "Hiatal hernia": {"always": 0.14, "age": 0.15},
    "Lymphadenopathy": {"always": 0.06, "tumour": 0.60, "infection": 0.20},
    "Emphysema": {"always": 0.04, "airways": 0.60, "tumour": 0.15},
    "Atelectasis": {"always": 0.09, "heart failure": 0.15, "infection": 0.20, "tumour": 0.10},
    "Lung nodule": {"always": 0.18, "tumour": 0.75, "infection": 0.12},
    "Ground glass": {"always": 0.04, "infection": 0.65, "heart failure": 0.20},
    "Pulmonary fibrotic sequela": {"always": 0.12, "age": 0.12, "airways": 0.25},
    "Pleural effusion": {"always": 0.03, "heart failure": 0.60, "tumour": 0.25, "infection": 0.15},
    "Mosaic attenuation pattern": {"always": 0.06, "airways": 0.35, "heart failure": 0.15},
    "Peribronchial thickening": {"always": 0.04, "airways": 0.45, "infection": 0.25},
    "Consolidation": {"always": 0.05, "infection": 0.55, "tumour": 0.10},
    "Bronchiectasis": {"always": 0.06, "airways": 0.45},
    "Interlobular septal thickening": {"always": 0.05, "heart failure": 0.50, "infection": 0.12},
}
ATELECTASIS_BY_FLUID = 0.45  # beside a pleural effusion


def draw_facts(rng: np.random.Generator) -> Facts:
    """The facts of one random chest CT; no lung lesion lies under much fluid or in a consolidated lobe."""
    there = _findings(rng)
    fluid = _fluid(rng) if "Pleural effusion" in there else None
    consolidation, ground_glass, nodules = _lung_lesions(there, visible_lobes(fluid), rng)

    def severity(finding: str) -> Severity | None:
        return _one(SEVERITIES, rng) if finding in there else None

    free = [lobe for lobe in visible_lobes(fluid) if lobe not in {focus.lobe for focus in consolidation}]
    wide_bronchi = (
        _some(free, min(len(free), int(rng.integers(2, 4))), rng) if "Bronchiectasis" in there else ()
    )
    stations = _some(STATIONS, int(rng.integers(3, 6)), rng) if "Lymphadenopathy" in there else ()
    return Facts(
        contrast=bool(rng.random() < 0.2),
        material=_one(MATERIALS, rng) if "Medical material" in there else None,
        arterial_calcification=severity("Arterial wall calcification"),
        cardiomegaly=severity("Cardiomegaly"),
        pericardial_mm=int(rng.integers(9, 25)) if "Pericardial effusion" in there else None,
        coronary_calcification=severity("Coronary artery wall calcification"),
        hernia_mm=int(rng.integers(25, 41)) * 2 if "Hiatal hernia" in there else None,
        nodes=stations,
        nodes_mm=int(rng.integers(22, 37)) if stations else 0,
        emphysema=severity("Emphysema"),
        atelectasis=_atelectasis(there, fluid, consolidation, rng),
        nodules=nodules,
        ground_glass=ground_glass,
        sequela=_sides(rng) if "Pulmonary fibrotic sequela" in there else (),
        effusion=fluid,
        mosaic=severity("Mosaic attenuation pattern"),
        peribronchial=severity("Peribronchial thickening"),
        consolidation=consolidation,
        bronchiectasis=wide_bronchi,
        septal=severity("Interlobular septal thickening"),
    )


def visible_lobes(fluid: Fluid | None) -> list[Lobe]:
    """The lobes that no more than a little pleural fluid covers; never fewer than three."""
    covered = {LOWER[side] for side in fluid.sides} if fluid is not None and fluid.mm >= 28 else set()
    return [lobe for lobe in LOBES if lobe not in covered]


def _findings(rng: np.random.Generator) -> set[str]:
    causes = {"always"} | {cause for cause, rate in CAUSES.items() if rng.random() < rate}
    there = set()
    for finding, chances in CHANCES.items():
        absent = np.prod([1 - chance for cause, chance in chances.items() if cause in causes])
        if rng.random() > absent:
            there.add(finding)
    return there


def _lung_lesions(
    there: set[str], lobes: Sequence[Lobe], rng: np.random.Generator
) -> tuple[tuple[Focus, ...], tuple[Focus, ...], tuple[Focus, ...]]:
    """Consolidation, ground glass and nodules; the two others keep out of consolidated lobes."""
    solid: tuple[Focus, ...] = ()
    if "Consolidation" in there:
        solid = _foci(_some(lobes, 1 + int(len(lobes) > 3 and rng.random() < 0.25), rng), (56, 92), rng)
    free = [lobe for lobe in lobes if lobe not in {focus.lobe for focus in solid}]
    hazy = (
        _foci(_some(free, min(len(free), int(rng.integers(2, 5))), rng), (50, 88), rng)
        if "Ground glass" in there
        else ()
    )
    nodules: list[Focus] = []
    if "Lung nodule" in there:
        count = int(rng.choice([1, 2, 4], p=[0.3, 0.4, 0.3]))
        nodules = [Focus(_one(free, rng), int(rng.integers(8, 16)) * 2) for _ in range(count)]
    return solid, hazy, tuple(sorted(nodules, key=lambda nodule: -nodule.mm))


def _atelectasis(
    there: set[str], fluid: Fluid | None, consolidation: Sequence[Focus], rng: np.random.Generator
) -> tuple[Lobe, ...]:
    """Lobes with atelectasis: under fluid as its consequence, else plates anywhere but in an upper lobe."""
    under = [LOWER[side] for side in fluid.sides] if fluid is not None else []
    lobes = set(under) if under and rng.random() < ATELECTASIS_BY_FLUID else set()
    if "Atelectasis" in there:
        taken = {focus.lobe for focus in consolidation}
        places = [lobe for lobe in LOBES if "upper" not in lobe and lobe not in taken]
        lobes |= set(_few(places, 2, rng))
    return tuple(lobe for lobe in LOBES if lobe in lobes)


def _fluid(rng: np.random.Generator) -> Fluid:
    return Fluid(_sides(rng), int(rng.integers(14, 61)))


def _sides(rng: np.random.Generator) -> tuple[Side, ...]:
    return (SIDES[:1], SIDES[1:], SIDES)[rng.choice(3, p=[0.35, 0.25, 0.4])]


def _foci(lobes: Sequence[Lobe], mm: tuple[int, int], rng: np.random.Generator) -> tuple[Focus, ...]:
    return tuple(Focus(lobe, int(rng.integers(mm[0], mm[1] + 1))) for lobe in lobes)


def _one(choices: Sequence[Choice], rng: np.random.Generator) -> Choice:
    return choices[int(rng.integers(len(choices)))]


def _some(choices: Sequence[Choice], count: int, rng: np.random.Generator) -> tuple[Choice, ...]:
    chosen = sorted(rng.choice(len(choices), size=count, replace=False))
    return tuple(choices[int(k)] for k in chosen)


def _few(choices: Sequence[Choice], most: int, rng: np.random.Generator) -> tuple[Choice, ...]:
    return _some(choices, min(len(choices), int(rng.integers(1, most + 1))), rng)
