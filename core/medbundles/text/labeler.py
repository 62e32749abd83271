"""Offline rule labeler of chest X-ray reports: fourteen conditions in CheXbert coding."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from medbundles.text import chest_phrases as phrases
from medbundles.text.assertion import CLAUSE_BREAK, NEGATIVE, POSITIVE, UNCERTAIN, mention_state
from medbundles.text.chest_phrases import CHEXPERT_CONDITIONS

BLANK = 0
_STRONGEST = (BLANK, NEGATIVE, UNCERTAIN, POSITIVE)  # of several mentions the last of these counts
_OTHER = "other_finding"

Mention = tuple[str, int]  # (condition, state)


def _starting(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(patterns)})[\w-]*")


def _stated(structure: str, state: str, stops: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The structure with a state after it ("heart is mildly enlarged") and before it ("enlarged heart")."""
    return (
        re.compile(rf"\b{structure}(?: (?!{stops}\b)\S+){{0,10}}? (?P<state>{state})\b"),
        re.compile(rf"\b(?P<state>{state})(?: (?!(?:is|are|for|{stops})\b)\S+){{0,4}}? {structure}\b"),
    )


_FINDINGS = {name: _starting(patterns) for name, patterns in phrases.FINDINGS.items()}
_FINDINGS[_OTHER] = _starting(phrases.OTHER_FINDINGS)
_LOOKALIKES = {name: _starting(patterns) for name, patterns in phrases.LOOKALIKES.items()}
_DEFINITE = f"{phrases.NORMAL}|{phrases.ENLARGED}"
_ENLARGED, _NORMAL, _OPEN = (
    {name: _stated(structure, state, stops) for name, structure in phrases.STRUCTURES.items()}
    for state, stops in (
        (phrases.ENLARGED, f"(?:an?|{_DEFINITE}|{phrases.OTHER_STRUCTURES})"),
        (phrases.NORMAL, phrases.ENLARGED),
        (phrases.OPEN, f"(?:{_DEFINITE}|{phrases.OTHER_STRUCTURES})"),
    )
)


def label_reports(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Label N reports: states (N, 14) in the order of CHEXPERT_CONDITIONS.

    Raises:
        TypeError: one string instead of a sequence of them.
    """
    if isinstance(texts, str):
        raise TypeError("label_reports needs a sequence of reports, got one str; use label_report")
    states = np.array([label_report(text) for text in texts], dtype=np.int64)
    return states.reshape(-1, len(CHEXPERT_CONDITIONS))


def label_report(text: str) -> list[int]:
    """Label one report, raw or cleaned: 14 states of BLANK, POSITIVE, NEGATIVE, UNCERTAIN (CheXbert coding).

    Of several mentions of one condition positive counts before uncertain, uncertain before negative.
    No Finding is POSITIVE when no other condition but support devices is positive or uncertain and no other
    abnormality is stated, else BLANK. A text without a word is BLANK throughout.
    """
    states = dict.fromkeys((*CHEXPERT_CONDITIONS, _OTHER), BLANK)
    sentences = list(_sentences(text))
    for sentence in sentences:
        for name, state in _mentions(sentence):
            states[name] = max(states[name], state, key=_STRONGEST.index)
    abnormal = any(
        state in (POSITIVE, UNCERTAIN) for name, state in states.items() if name != "support_devices"
    )
    states["no_finding"] = POSITIVE if sentences and not abnormal else BLANK
    return [states[name] for name in CHEXPERT_CONDITIONS]


def _sentences(text: str) -> Iterator[str]:
    """Lower-case sentences of words, hyphens and decimals; empty lines and list numbers separate them too."""
    text = re.sub(r"\n\s*\n|[;!]|(?<!\S)\d{1,2}[.)]\s", " . ", text.lower())
    for sentence in re.split(r"(?<!\d)\.|\.(?!\d)", text):
        words = re.sub(r"[^a-z0-9.-]+", " ", sentence.replace("'", "")).strip(" -")
        if words:
            yield words


@lru_cache(maxsize=65536)  # reports repeat their sentences
def _mentions(sentence: str) -> tuple[Mention, ...]:
    found: list[Mention] = []
    for part in CLAUSE_BREAK.split(sentence):
        clause = " ".join(part.split())
        for name, pattern in _FINDINGS.items():
            decoys = [m.span() for m in _LOOKALIKES[name].finditer(clause)] if name in _LOOKALIKES else []
            for mention in pattern.finditer(clause):
                start, end = mention.span()
                if not any(start < decoy_end and decoy_start < end for decoy_start, decoy_end in decoys):
                    found.append((name, mention_state(clause[:start], clause[end:])))
        for name in phrases.STRUCTURES:
            found += [(name, state) for state in _structure_states(name, clause)]
    return tuple(found)


def _structure_states(name: str, clause: str) -> list[int]:
    """States of a structure that is a finding only when it is said to be enlarged."""
    states = [
        mention_state(clause[: mention.start("state")], clause[mention.end("state") :])
        for pattern in _ENLARGED[name]
        for mention in pattern.finditer(clause)
    ]
    if any(pattern.search(clause) for pattern in _NORMAL[name]):
        states.append(NEGATIVE)
    if not states and any(pattern.search(clause) for pattern in _OPEN[name]):
        states.append(UNCERTAIN)
    return states
