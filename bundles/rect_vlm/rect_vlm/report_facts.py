"""Facts of a chest CT report: which finding, where, and whether it is stated, denied or left open."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from medbundles.text.assertion import NEGATIVE, POSITIVE, UNCERTAIN

from rect_vlm.report_labeler import Mention, mentions

Fact = tuple[str, str, str]  # (finding, place, polarity)

PRESENT, POSSIBLE, ABSENT = "present", "possible", "absent"
_POLARITY = {POSITIVE: PRESENT, UNCERTAIN: POSSIBLE, NEGATIVE: ABSENT}
_STRENGTH = (ABSENT, POSSIBLE, PRESENT)

# Findings of both lungs; the others have no side. A pleural effusion has a side and no lobe.
WITH_LOBE = frozenset(
    {
        "Emphysema",
        "Atelectasis",
        "Lung nodule",
        "Lung opacity",
        "Pulmonary fibrotic sequela",
        "Mosaic attenuation pattern",
        "Peribronchial thickening",
        "Consolidation",
        "Bronchiectasis",
        "Interlobular septal thickening",
    }
)
WITH_SIDE = WITH_LOBE | {"Pleural effusion"}

_SIDE = r"(?P<side>right|left|bilateral\w*|both)"
_LOBE = r"(?P<lobe>upper|middle|lower|lingul\w*|apical|apex|apices|basal|bases?)"
_PLACES = (
    re.compile(
        rf"\b{_LOBE}(?: (?:lobes?|zones?|parts?|segments?|level|region|lungs?|of|in|the)){{1,5}} {_SIDE}\b"
    ),
    re.compile(rf"\b{_SIDE}(?: (?:lungs?|hemithorax)\b)*(?: {_LOBE}\b)?"),
    re.compile(rf"\b(?P<side>){_LOBE}(?: (?:lobes?|zones?)\b|\b)"),
)
_SAME_LOBE = {"apical": "upper", "apex": "upper", "apices": "upper", "basal": "lower", "base": "lower"}


def facts(text: str) -> set[Fact]:
    """Facts of a report: triples of a finding of FINDINGS, its place and its polarity.

    The place is "", a side ("right"), a side with a lobe ("left lower") or a lobe ("upper"); both sides are
    two facts, and a finding without a side has none. The polarity is "present", "possible" or "absent"; of
    several statements about one place the strongest counts, and a statement without a place says nothing
    where the same finding is stated at a place.
    """
    strongest: dict[str, dict[str, str]] = defaultdict(dict)
    for mention in mentions(text):
        places = strongest[mention.finding]
        for place in _places(mention):
            polarity = _POLARITY[mention.state]
            places[place] = max(places.get(place, ABSENT), polarity, key=_STRENGTH.index)
    return {fact for finding, places in strongest.items() for fact in _without_repeats(finding, places)}


def fact_f1(said: set[Fact], true: set[Fact]) -> float:
    """F1 of two sets of facts; 1 where both are empty."""
    return 2 * len(said & true) / (len(said) + len(true)) if said or true else 1.0


def _without_repeats(finding: str, places: dict[str, str]) -> Iterator[Fact]:
    """Facts of one finding, without those that a more exact one of the same finding makes idle."""
    located = [place for place, polarity in places.items() if place and polarity != ABSENT]
    for place, polarity in places.items():
        said_more_exactly = not place and located
        inside = " " not in place and any(other.startswith(f"{place} ") for other in located)
        if not (said_more_exactly or (place and inside)):
            yield finding, place, polarity


def _places(mention: Mention) -> set[str]:
    """Places of a mention: those of its clause, else those of its sentence, else ""."""
    if mention.finding not in WITH_SIDE:
        return {""}
    places = _find(mention.clause) or _find(mention.sentence) or [("", "")]
    if mention.finding not in WITH_LOBE:
        places = [(side, "") for side, _ in places]
    return {" ".join(filter(None, place)) for place in places}


def _find(words: str) -> list[tuple[str, str]]:
    """(side, lobe) of every place, in order; a lobe without a side has that of the place before it."""
    places: list[tuple[str, str]] = []
    sides: Iterable[str] = ("",)
    for match in _matches(words):
        side, lobe = match["side"], _lobe(match["lobe"])
        if side:
            sides = ("right", "left") if side == "both" or side.startswith("bilateral") else (side,)
        places += [(each, lobe) for each in sides]
    return list(dict.fromkeys(places))


def _lobe(word: str | None) -> str:
    if not word:
        return ""
    return (
        "lingula"
        if word.startswith("lingul")
        else _SAME_LOBE.get(word.rstrip("s"), _SAME_LOBE.get(word, word))
    )


def _matches(words: str) -> list[re.Match[str]]:
    """Places in order, each word in one place only: a pattern earlier in _PLACES takes its words first."""
    taken: list[re.Match[str]] = []
    for pattern in _PLACES:
        for match in pattern.finditer(words):
            if not any(match.start() < other.end() and other.start() < match.end() for other in taken):
                taken.append(match)
    return sorted(taken, key=lambda match: match.start())
