"""The report of a simulated chest radiograph: templated sentences for its facts, in ordinary wordings.

Every report says what is there, with side and size, and denies what is not; the first wording of a sentence
is the commonest, as with one reporting radiologist. No wording changes what a labeler should read.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kif_mrg.phantom_facts import SIDES, Effusion, Facts, Lesion, Opacity, Side

WORDING_RATES = (0.6, 0.25, 0.15)
HEART = {
    "normal": (
        "Heart size is normal",
        "Heart size is within normal limits",
        "The heart is normal in size",
    ),
    "enlarged": (
        "There is {size} cardiomegaly",
        "The heart is {adverb} enlarged",
        "The cardiac silhouette is {adverb} enlarged",
    ),
}
MEDIASTINUM = (
    "Mediastinal contours are normal",
    "The mediastinum is unremarkable",
    "Mediastinal contours are within normal limits",
)
CLEAR_LUNGS = (
    "No focal opacity or consolidation",
    "Lungs are clear without focal consolidation or opacity",
    "There is no focal airspace opacity or consolidation",
)
OPACITY = (
    "There is a hazy opacity in the {side} {zone} lung zone",
    "A hazy opacity is seen in the {side} {zone} lung zone",
    "Hazy airspace opacity projects over the {side} {zone} lung zone",
)
CAUSE = (
    "This may represent {cause}",
    "Possible {cause}",
    "{Cause} cannot be excluded",
)
NO_LESION = (
    "No pulmonary nodule or mass",
    "There is no lung nodule or mass",
    "No nodules or masses are seen",
)
LESION = (
    "There is a {mm} mm {name} in the {side} {zone} lung zone",
    "A {mm} mm {name} is seen in the {side} {zone} lung zone",
    "A {name} measuring {mm} mm projects over the {side} {zone} lung zone",
)
NO_EFFUSION = (
    "No pleural effusion or pneumothorax",
    "There is no pneumothorax or pleural effusion",
    "No evidence of pleural effusion or pneumothorax",
)
ONE_EFFUSION = (
    "There is a {size} {side} pleural effusion",
    "A {size} pleural effusion is present on the {side}",
    "{Size} {side} pleural effusion is noted",
)
OTHER_SIDE = (
    "The {side} costophrenic angle is sharp",
    "The {side} costophrenic sulcus is clear",
    "There is no {side} pleural effusion",
)
TWO_EFFUSIONS = (
    "There are {size} bilateral pleural effusions",
    "{Size} pleural effusions are present bilaterally",
    "{Size} bilateral pleural effusions are noted",
)
NO_PNEUMOTHORAX = (
    "No pneumothorax",
    "There is no pneumothorax",
    "No evidence of pneumothorax",
)
CATHETER = (
    "{Side} central venous catheter with tip in the superior vena cava",
    "A {side} central venous catheter terminates in the superior vena cava",
    "There is a {side} subclavian central venous catheter",
)
BONES = (
    "Bony structures are intact",
    "The osseous structures are intact",
    "No acute bony abnormality is seen",
)
ADVERB = {"mild": "mildly", "moderate": "moderately", "severe": "severely"}


def write_report(facts: Facts, rng: np.random.Generator) -> str:
    """The findings text of `facts`; `rng` chooses wordings and order."""
    heart = [_heart(facts, rng), _word(MEDIASTINUM, rng)]
    lungs = [*_opacity(facts.opacity, rng), _lesion(facts.lesion, rng)]
    pleura = _pleura(facts.effusion, rng)
    parts = [heart, lungs, pleura] if rng.random() < 0.75 else [lungs, pleura, heart]
    if facts.catheter is not None:
        parts.insert(0 if rng.random() < 0.75 else 3, [_word(CATHETER, rng, side=facts.catheter)])
    parts.append([_word(BONES, rng)])
    return " ".join(f"{sentence}." for part in parts for sentence in part)


def _word(wordings: Sequence[str], rng: np.random.Generator, **facts: object) -> str:
    wording = wordings[int(rng.choice(len(WORDING_RATES), p=WORDING_RATES))]
    capitals = {key.capitalize(): str(value).capitalize() for key, value in facts.items()}
    return wording.format(**facts, **capitals)


def _heart(facts: Facts, rng: np.random.Generator) -> str:
    if facts.heart == "normal":
        return _word(HEART["normal"], rng)
    return _word(HEART["enlarged"], rng, size=facts.heart, adverb=ADVERB[facts.heart])


def _opacity(opacity: Opacity | None, rng: np.random.Generator) -> list[str]:
    if opacity is None:
        return [_word(CLEAR_LUNGS, rng)]
    cause = "atelectasis" if opacity.zone == "lower" else "pneumonia"
    return [_word(OPACITY, rng, side=opacity.side, zone=opacity.zone), _word(CAUSE, rng, cause=cause)]


def _lesion(lesion: Lesion | None, rng: np.random.Generator) -> str:
    if lesion is None:
        return _word(NO_LESION, rng)
    return _word(LESION, rng, mm=lesion.mm, name=lesion.name, side=lesion.side, zone=lesion.zone)


def _pleura(effusion: Effusion | None, rng: np.random.Generator) -> list[str]:
    if effusion is None:
        return [_word(NO_EFFUSION, rng)]
    if len(effusion.sides) == 2:
        return [_word(TWO_EFFUSIONS, rng, size=effusion.size), _word(NO_PNEUMOTHORAX, rng)]
    (side,) = effusion.sides
    other: Side = SIDES[1 - SIDES.index(side)]
    return [
        _word(ONE_EFFUSION, rng, size=effusion.size, side=side),
        _word(OTHER_SIDE, rng, side=other),
        _word(NO_PNEUMOTHORAX, rng),
    ]
