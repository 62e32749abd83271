"""The report of a simulated chest CT: findings and impression that follow from its facts alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from rect_vlm import phantom_wordings as words
from rect_vlm.phantom_facts import Facts, Focus, Side


def write_report(facts: Facts, rng: np.random.Generator) -> tuple[str, str]:
    """The findings and the impression of `facts`; `rng` chooses the wordings, not what is said."""
    material = [_say(words.MATERIAL[facts.material], rng)] if facts.material else []
    sentences = [*material, *_mediastinum(facts, rng), *_lungs(facts, rng), *_pleura(facts, rng)]
    if rng.random() < 0.5:
        sentences.append(_say(words.ABDOMEN, rng))
    impression = _impression(facts) or [_say(words.NORMAL_IMPRESSION, rng)]
    return _text(sentences), _text(impression)


def write_technique(facts: Facts) -> str:
    """How the images were taken."""
    return words.TECHNIQUE[facts.contrast]


def _mediastinum(facts: Facts, rng: np.random.Generator) -> list[str]:
    out = [_say(words.TRACHEA, rng)]
    heart = facts.cardiomegaly
    out.append(_say(words.HEART_LARGE, rng, size=heart) if heart else _say(words.HEART_NORMAL, rng))
    aorta = facts.arterial_calcification
    out.append(_say(words.AORTA_HARD, rng, size=aorta) if aorta else _say(words.AORTA_NORMAL, rng))
    if facts.coronary_calcification:
        out.append(_say(words.CORONARIES_HARD, rng, size=facts.coronary_calcification))
    fluid = facts.pericardial_mm
    out.append(_say(words.PERICARDIUM_FLUID, rng, mm=fluid) if fluid else _say(words.PERICARDIUM_CLEAR, rng))
    hernia = facts.hernia_mm
    out.append(_say(words.HERNIA, rng, mm=hernia) if hernia else _say(words.ESOPHAGUS_NORMAL, rng))
    nodes = _list(facts.nodes)
    out.append(
        _say(words.NODES, rng, mm=facts.nodes_mm, places=nodes) if nodes else _say(words.NODES_NORMAL, rng)
    )
    return out


def _lungs(facts: Facts, rng: np.random.Generator) -> list[str]:
    out = []
    for severity, wordings in (
        (facts.emphysema, words.EMPHYSEMA),
        (facts.mosaic, words.MOSAIC),
        (facts.septal, words.SEPTA),
        (facts.peribronchial, words.CUFFS),
    ):
        if severity:
            out.append(_say(wordings, rng, size=severity))
    if facts.bronchiectasis:
        out.append(_say(words.WIDE_BRONCHI, rng, lobes=_lobes(facts.bronchiectasis)))
    opacity = facts.ground_glass or facts.consolidation
    if facts.ground_glass:
        out.append(_say(words.GROUND_GLASS, rng, lobes=_lobes(_places(facts.ground_glass))))
    for focus in facts.consolidation:
        out.append(_say(words.CONSOLIDATION, rng, mm=focus.mm, lobes=_lobes([focus.lobe])))
    if not opacity:
        out.append(_say(words.NO_OPACITY if facts.nodules else words.LUNGS_CLEAR, rng))
    out += [_say(words.NODULE, rng, mm=focus.mm, lobe=focus.lobe) for focus in facts.nodules]
    if opacity and not facts.nodules:
        out.append(_say(words.NO_NODULE, rng))
    if facts.atelectasis:
        out.append(_say(words.ATELECTASIS, rng, lobes=_lobes(facts.atelectasis)))
    if facts.sequela:
        out.append(_say(words.SEQUELA, rng, apices=_apices(facts.sequela)))
    return out


def _pleura(facts: Facts, rng: np.random.Generator) -> list[str]:
    if facts.effusion is None:
        return [_say(words.PLEURA_CLEAR, rng)]
    fluid = facts.effusion
    return [_say(words.PLEURA_FLUID, rng, size=fluid.size, side=_side(fluid.sides), mm=fluid.mm)]


def _impression(facts: Facts) -> list[str]:
    """What is there, the gravest first, each in a few words."""
    fluid = facts.effusion
    lines = [
        (facts.consolidation, f"Consolidation in the {_lobes(_places(facts.consolidation))}"),
        (facts.ground_glass, f"Ground glass opacity in the {_lobes(_places(facts.ground_glass))}"),
        (facts.nodules, f"Lung nodule in the {_lobes(_places(facts.nodules))}"),
        (facts.nodes, "Lymphadenopathy"),
        (fluid, f"{_side(fluid.sides).capitalize()} pleural effusion" if fluid else ""),
        (facts.pericardial_mm, "Pericardial effusion"),
        (facts.cardiomegaly, "Cardiomegaly"),
        (facts.septal, "Interlobular septal thickening"),
        (facts.atelectasis, f"Atelectasis in the {_lobes(facts.atelectasis)}"),
        (facts.emphysema, "Emphysema"),
        (facts.mosaic, "Mosaic attenuation pattern"),
        (facts.peribronchial, "Peribronchial thickening"),
        (facts.bronchiectasis, f"Bronchiectasis in the {_lobes(facts.bronchiectasis)}"),
        (facts.sequela, f"Fibrotic sequela changes in the {_apices(facts.sequela)}"),
        (facts.arterial_calcification, "Calcification of the aortic wall"),
        (facts.coronary_calcification, "Coronary artery calcification"),
        (facts.hernia_mm, "Hiatal hernia"),
    ]
    return [line for fact, line in lines if fact]


def _say(wordings: Sequence[str], rng: np.random.Generator, **facts: object) -> str:
    wording = wordings[int(rng.choice(len(words.WORDING_RATES), p=words.WORDING_RATES))]
    size = str(facts.get("size", ""))
    return wording.format(Size=size.capitalize(), adverb=words.ADVERB.get(size, ""), **facts)


def _text(sentences: Iterable[str]) -> str:
    return " ".join(f"{sentence}." for sentence in sentences)


def _list(items: Sequence[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def _lobes(lobes: Sequence[str]) -> str:
    return f"{_list(lobes)} lobe{'s' if len(lobes) > 1 else ''}"


def _places(foci: Sequence[Focus]) -> list[str]:
    return list(dict.fromkeys(focus.lobe for focus in foci))


def _side(sides: Sequence[Side]) -> str:
    return sides[0] if len(sides) == 1 else "bilateral"


def _apices(sides: Sequence[Side]) -> str:
    return f"{sides[0]} lung apex" if len(sides) == 1 else "apices of both lungs"
