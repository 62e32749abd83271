"""Whether a finding mentioned in a radiology sentence is stated, denied or left open.

Cues are looked for in the clause of the mention only. Texts are lower-case words separated by single spaces,
without commas. The cues follow the rules of chexpert-labeler (Irvin et al., AAAI 2019, arXiv 1901.07031) and
NegEx (Chapman et al., J Biomed Inform 2001) in kind; the patterns are our own.
"""

from __future__ import annotations

import re

POSITIVE, NEGATIVE, UNCERTAIN = 1, 2, 3

_SEEN = r"(?:seen|identified|noted|present|visuali[sz]ed|visible|evident|demonstrated|appreciated|detected)"
_BE = r"(?:is|are|was|were)"
_VERB = r"(?:is|are|was|were|has|have|had|may|might|could|can|cannot)"
_TO_VERB = rf"^(?:(?! {_VERB}\b) \S+){{0,8}}"  # from the mention to the first verb after it

CLAUSE_BREAK = re.compile(
    r"\b(?:but|however|although|though|whereas|there (?:is|are|was|were|has|have)|except(?: for)?|other than"
    r"|aside from|apart from|(?<!consistent )(?<!compatible )(?<!associated )with)\b"
)

_NOT_EXCLUDED_BEFORE = re.compile(
    r"\b(?:cannot|can not|could not|not|unable to|difficult to) (?:\w+ ){0,2}?(?:exclude|rule out)\b"
)
_NOT_EXCLUDED_AFTER = re.compile(
    rf"{_TO_VERB} (?:cannot|can not|could not|{_BE} not)(?: \w+){{0,3}}? (?:excluded|ruled out)\b"
    rf"|{_TO_VERB} may not\b|{_TO_VERB} {_BE} difficult to (?:\w+ )?(?:exclude|rule out)\b"
    rf"|{_TO_VERB} {_BE} not (?:well|clearly|adequately|fully) (?:{_SEEN}|evaluated|assessed)\b"
)

_NO_CHANGE = re.compile(  # "no change in the effusion" does not deny it
    r"\b(?:no|not|without)(?: \w+){0,3}?"
    r" (?:chang\w*|(?:in|de)crease (?:in|of)|progression|worsening of|improvement|differen\w+|only)\b"
)
_NEGATION = re.compile(
    r"\b(?:no|not|without|nor|neither|never|absent|absence of|free of|clear of|clearing of|negative for"
    r"|resolution of|removal of|instead of|rather than)\b"
)
_NEGATION_ADJACENT = (
    re.compile(  # "resolved effusion"; "edema has resolved and effusion persists" is another thing
        r"(?<!has )(?<!have )(?<!been )(?<!is )(?<!are )\b(?:resolved|removed|history of)(?: \w+){0,2} $"
    )
)
_NEGATION_AFTER = re.compile(
    rf"{_TO_VERB} (?:{_BE}|has|have|had)(?: \w+){{0,3}}? (?:not|no longer)\b(?! \w* ?changed)"
    rf"|{_TO_VERB} (?:{_BE}|has|have|had)(?: \w+){{0,2}}?"
    r" (?:resolved|cleared|absent|removed|ruled out|excluded|normal|unremarkable|within (?:normal|limits))\b"
    rf"|^ (?:none|absent|negative|resolved|not {_SEEN})\b"
)

_DOUBT = re.compile(
    r"\b(?:(?:may|might|could|would)(?: \w+){0,2}?"
    r" (?:be|represent|reflect|indicate|include|suggest|relate|correspond|contain|have)"
    r"|maybe|possibly|presumably|suggest\w*|suspici(?:ous|on) (?:for|of)|concern\w* (?:for|of)|worrisome for"
    r"|question of|possibility of|rule out|exclude|differential (?:diagnosis )?includ\w*|evaluate for"
    r"|correlat\w*(?: \w+){0,2} for)\b"
)
_DOUBT_ADJACENT = re.compile(
    r"\b(?:possible|probable|question(?:able)?|suspect(?:ed)?|equivocal|borderline|less likely|unlikely"
    r"|presumed|versus|vs|and ?or|(?<!one )(?<!two )(?<!three )or)(?: (?!and\b)\S+){0,4} $"
)
_DOUBT_AFTER = re.compile(
    rf"{_TO_VERB} {_BE}(?: \w+)?"
    r" (?:possible|suspected|questioned|questionable|considered|favou?red|unlikely|less likely)\b"
    rf"|{_TO_VERB} (?:may|might|could) (?:\w+ )?be (?:{_SEEN}|considered)\b"
    r"|^(?: (?!and\b)\S+){0,3} (?:versus|vs|and ?or|(?<! one )(?<! two )or)\b"
    r"|^(?: \S+){0,3} (?:not excluded|suspected)\b"
)

# Where a cue before the mention ends to hold: its own predicate is complete, or a new subject begins.
_REACH_ENDS = re.compile(
    rf"\b{_BE} (?:\w+ )?{_SEEN}\b"
    r"|\band (?:the|a|an|there)\b"
    r"|\b(?:heart|lungs?|cardi\w+|mediastin\w+)(?: \w+){0,3}? (?:is|are|remains?|appears?)\b"
)


def mention_state(before: str, after: str) -> int:
    """State of a mention (POSITIVE, NEGATIVE or UNCERTAIN) from the words of its clause before and after it.

    `before` is empty or ends with a space, `after` is empty or starts with one.
    """
    if _NOT_EXCLUDED_BEFORE.search(before) or _NOT_EXCLUDED_AFTER.search(after):
        return UNCERTAIN
    denied = _reaches(_NEGATION, _NO_CHANGE.sub("", before)) or _NEGATION_ADJACENT.search(before)
    if denied or _NEGATION_AFTER.search(after):
        return NEGATIVE
    if _reaches(_DOUBT, before) or _DOUBT_ADJACENT.search(before) or _DOUBT_AFTER.search(after):
        return UNCERTAIN
    return POSITIVE


def _reaches(cue: re.Pattern[str], before: str) -> bool:
    """Whether a cue before the mention still holds there."""
    return any(not _REACH_ENDS.search(before, match.end()) for match in cue.finditer(before))
