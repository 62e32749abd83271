"""Cleaning of report text, equal to the last character to what published report metrics are computed on.

The rules are those of R2Gen (Chen et al., EMNLP 2020), with their oddities: `11. Foo` becomes `1foo`.
"""

from __future__ import annotations

from typing import Literal, get_args

Style = Literal["iu", "mimic"]

# Old and new text in the order of application; a repeated rule collapses longer runs.
_LIST_NUMBERS = [("1. ", "")]
_LIST_NUMBERS += [(f". {number}. ", ". ") for number in range(2, 6)]
_LIST_NUMBERS += [(f" {number}. ", ". ") for number in range(2, 6)]
_RULES: dict[str, list[tuple[str, str]]] = {
    "iu": [("..", ".")] * 3 + _LIST_NUMBERS,
    "mimic": [("\n", " ")] + [("  ", " ")] * 6 + [("..", ".")] * 8 + _LIST_NUMBERS,
}
_QUOTES = str.maketrans("", "", "\"/\\'")
_PUNCTUATION = str.maketrans("", "", ".,?;*!%^&_+():<=>@[]{}")


def clean_report(text: str, style: Style = "iu") -> str:
    """Lower-case a report and set its sentences apart: "Clear. Heart (mild)." is "clear . heart mild ."

    Args:
        text: the report as written.
        style: "iu" or "mimic"; "mimic" also joins lines and collapses runs of spaces.

    Raises:
        ValueError: for another style.
    """
    if style not in _RULES:
        raise ValueError(f"style must be one of {', '.join(get_args(Style))}, got {style!r}")
    for old, new in _RULES[style]:
        text = text.replace(old, new)
    sentences = text.strip().lower().split(". ")
    # Quotes go first: what they leave at the edge of a sentence is stripped, other punctuation leaves it.
    cleaned = [part.translate(_QUOTES).strip().translate(_PUNCTUATION) for part in sentences]
    return " . ".join(cleaned) + " ."


def first_words(text: str, max_words: int) -> str:
    """Return the first `max_words` words of a cleaned report; two spaces in a row count as an empty word."""
    return " ".join(text.split(" ", max_words)[:max_words])
