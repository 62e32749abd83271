"""Offline rule labeler of chest CT reports: the 18 findings of CT-RATE, stated, denied or left open.

Its figures are its own: published label scores of CT-RATE are those of a learned labeler (`radbert`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from medbundles.text.assertion import CLAUSE_BREAK, NEGATIVE, POSITIVE, UNCERTAIN, mention_state

from rect_vlm import labeler_phrases as phrases
from rect_vlm.findings import FINDINGS

BLANK = 0
_STRONGEST = (BLANK, NEGATIVE, UNCERTAIN, POSITIVE)  # of several mentions the last of these counts

Labels = npt.NDArray[np.int64]
ReportLabeler = Callable[[Sequence[str]], Labels]  # N reports -> (N, 18) of 0 and 1


class Mention(NamedTuple):
    """One mention of a finding: its state, and the words it was made in."""

    finding: str
    state: int
    clause: str
    sentence: str


def label_reports(texts: Sequence[str]) -> Labels:
    """Label N reports: (N, 18) of 0 and 1 in the order of FINDINGS; see label_findings.

    Raises:
        TypeError: one string instead of a sequence of them.
    """
    if isinstance(texts, str):
        raise TypeError("label_reports needs a sequence of reports, got one str; use label_findings")
    labels = np.array([label_findings(text) for text in texts], dtype=np.int64)
    return labels.reshape(-1, len(FINDINGS))


def label_findings(text: str, uncertain: Literal["negative", "positive"] = "negative") -> list[int]:
    """Whether a report states each of the 18 findings: 0 or 1; `uncertain` is what a hedged one counts as.

    Raises:
        ValueError: another value of `uncertain`.
    """
    if uncertain not in ("negative", "positive"):
        raise ValueError(f"uncertain must be 'negative' or 'positive', got {uncertain!r}")
    counted = (POSITIVE,) if uncertain == "negative" else (POSITIVE, UNCERTAIN)
    return [int(state in counted) for state in finding_states(text)]


def finding_states(text: str) -> list[int]:
    """States of the 18 findings: BLANK, POSITIVE, NEGATIVE or UNCERTAIN as in medbundles.text.assertion.

    Of several mentions of a finding positive counts before uncertain, uncertain before negative.
    """
    states = dict.fromkeys(FINDINGS, BLANK)
    for mention in mentions(text):
        states[mention.finding] = max(states[mention.finding], mention.state, key=_STRONGEST.index)
    return list(states.values())


def mentions(text: str) -> list[Mention]:
    """Every mention of a finding in a report, in the order of its sentences."""
    return [mention for sentence, asked in _sentences(text) for mention in _read(sentence, asked)]


_HEADER = re.compile(r"\b(?:findings?|impressions?)\s*:")
_ASIDE = re.compile(r"\(([^()]*)\?\s*\)")  # "(sequela?)" is a thought about the sentence, not a part of it
_BREAK = re.compile(r"\n\s*\n|\n\s*[-*]|[;!]|[ \t]{2,}|(?<!\S)\d{1,2}[.)]\s|(?<!\d)\.|\.(?!\d)")
_OF = re.compile(  # "with pathological size" belongs to the noun before it; other "with" opens a clause
    r"\bwith (?=(?:\S+ ){0,3}?(?:patholog\w*|diameter|sizes?|dimensions?|short|discernible|disting\w+)\b)"
)


def _sentences(text: str) -> Iterator[tuple[str, bool]]:
    """Lower-case sentences of words, hyphens and decimals, and whether they are asked rather than said."""
    text = _HEADER.sub(" . ", text.lower())
    text = _ASIDE.sub(" ", text) + "".join(f" . {aside}? " for aside in _ASIDE.findall(text))
    for sentence in re.split("\0", _BREAK.sub("\0", text).replace("?", "?\0")):
        asked = sentence.endswith("?")
        said, _, question = sentence.rpartition(",") if asked else (sentence, "", "")
        for part, doubtful in ((said, False), (question, True)):
            words = " ".join(re.sub(r"[^a-z0-9.-]+", " ", part.replace("'", "")).split())
            if words:
                yield _OF.sub("of ", words), doubtful


def _starting(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(patterns)})[\w-]*")


_FINDINGS = {name: _starting(patterns) for name, patterns in phrases.FINDINGS.items()}
_LOOKALIKES = {name: _starting(patterns) for name, patterns in phrases.LOOKALIKES.items()}
_LUNG, _OTHER_ORGAN = re.compile(rf"\b{phrases.LUNG}"), re.compile(rf"\b{phrases.OTHER_ORGAN}")
_EFFUSION = re.compile(rf"\b{phrases.EFFUSION}")
_FLUID_PLACES = {name: re.compile(rf"\b{pattern}") for name, pattern in phrases.FLUID_PLACES.items()}
_STEP = rf"(?: (?!(?:not|no|{phrases.OTHER_STRUCTURES}|{phrases.ENLARGED}|{phrases.NORMAL})\b)\S+){{0,8}}?"
_HEART = re.compile(
    rf"\b{phrases.HEART}{_STEP} (?P<not>not (?:\w+ )?)?(?P<state>{phrases.ENLARGED}|{phrases.NORMAL})"
    rf"(?P<than> than normal)?|\b(?P<first>normal) {phrases.HEART}"
)
_DENIED_INSIDE = re.compile(r"\b(?:not|no longer)\b")  # "calcification was not observed in the aorta"
_DENIED_LATER = (
    re.compile(  # the subject of a sentence may be long: "... in both axillary regions was not seen"
        r"^(?:(?! (?:is|are|was|were|has|have|which|that)\b) \S+){0,25} (?:is|are|was|were) not"
        r" (?:seen|observed|detected|found|noted|identified|present|encountered)\b"
    )
)
_NOT_PATHOLOGICAL = re.compile(
    r"\b(?:not|no|non|without)[- ](?:\w+ ){0,3}(?:pathologic\w*|enlarged)\b|\bnot reach\w*"
)


@lru_cache(maxsize=65536)  # reports repeat their sentences
def _read(sentence: str, asked: bool) -> tuple[Mention, ...]:
    found = []
    for part in CLAUSE_BREAK.split(sentence):
        clause = " ".join(part.split())
        for name, start, end in _spans(clause, sentence):
            found.append((name, _state(name, clause[:start], clause[start:end], clause[end:]), clause))
        found += [("Cardiomegaly", state, clause) for state in _heart_states(clause)]
    return tuple(
        Mention(name, UNCERTAIN if asked and state == POSITIVE else state, clause, sentence)
        for name, state, clause in found
    )


def _spans(clause: str, sentence: str) -> Iterator[tuple[str, int, int]]:
    """Finding, start and end of every phrase in a clause that is no lookalike."""
    elsewhere = _OTHER_ORGAN.search(sentence) and not _LUNG.search(sentence)
    fluids = []
    for name, pattern in _FINDINGS.items():
        if elsewhere and name in phrases.LUNG_ONLY:
            continue
        decoys = [m.span() for m in _LOOKALIKES[name].finditer(clause)] if name in _LOOKALIKES else []
        for mention in pattern.finditer(clause):
            if not _overlaps(mention.span(), decoys):
                yield name, *mention.span()
                fluids += [mention.span()] if name in phrases.FLUID_PLACES else []
    for mention in _EFFUSION.finditer(clause):
        place = _place_of_fluid(sentence)
        if place and not _overlaps(mention.span(), fluids):
            yield place, *mention.span()


def _overlaps(span: tuple[int, int], others: Iterable[tuple[int, int]]) -> bool:
    return any(span[0] < end and start < span[1] for start, end in others)


def _place_of_fluid(sentence: str) -> str | None:
    """Which effusion one without its adjective is: by the one place the sentence names, else pleural."""
    places = [name for name, pattern in _FLUID_PLACES.items() if pattern.search(sentence)]
    if len(places) > 1:
        return None
    name = places[0] if places else "Pleural effusion"
    return name if name in FINDINGS else None


def _state(name: str, before: str, mention: str, after: str) -> int:
    if _DENIED_INSIDE.search(mention) or _DENIED_LATER.search(after):
        return NEGATIVE
    state = mention_state(before, after)
    if name == "Lymphadenopathy" and state == POSITIVE and _NOT_PATHOLOGICAL.search(after):
        return NEGATIVE
    return state


def _heart_states(clause: str) -> Iterator[int]:
    """Cardiomegaly as a statement about the size of the heart."""
    for mention in _HEART.finditer(clause):
        word = mention["state"] or mention["first"]
        enlarged = re.match(phrases.ENLARGED, word) is not None and not mention["not"]
        yield POSITIVE if enlarged else NEGATIVE
