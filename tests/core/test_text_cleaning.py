"""Cleaning equals R2Gen's: goldens were computed once by its two cleaning functions (commit 005dbf5)."""

from __future__ import annotations

import random

import pytest
from medbundles.text.cleaning import clean_report, first_words

BOTH = {
    "Lungs clear": "lungs clear .",
    "": " .",
    "Heart size normal. 11. Foo": "heart size normal . 1foo .",
    "Nodule of 3.5 cm (right); stable.": "nodule of 35 cm right stable .",
    "A-Z: well-expanded [LUNGS] @ rest > 2": "a-z well-expanded lungs  rest  2 .",
    "one. 2. two 3. three": "one . two . three .",
    "1. one. 6. six": "one . 6 . six .",
    "ends .. Here": "ends . here .",
    'No "acute" disease\\change/loss': "no acute diseasechangeloss .",
    "'quoted ' sentence": "quoted  sentence .",
}
IU_ONLY = {"two  spaces\nand a line": "two  spaces\nand a line ."}
MIMIC_ONLY = {
    "two  spaces\nand a line": "two spaces and a line .",
    "FINDINGS:\n1. Clear lungs.\n2. Heart/mediastinum: ___ (2.5 cm).": (
        "findings clear lungs . heartmediastinum  25 cm ."
    ),
}


@pytest.mark.parametrize(
    ("style", "text", "cleaned"),
    [("iu", *pair) for pair in {**BOTH, **IU_ONLY}.items()]
    + [("mimic", *pair) for pair in {**BOTH, **MIMIC_ONLY}.items()],
)
def test_goldens(style: str, text: str, cleaned: str) -> None:
    assert clean_report(text, style) == cleaned  # type: ignore[arg-type]


def test_dots_collapse_as_often_as_the_original_did() -> None:
    # Three passes bring nine dots to two, eight to one; MIMIC's eight passes reach one for 256.
    assert clean_report("x 2" + "." * 8 + " b") == "x . b ."
    assert clean_report("x 2" + "." * 9 + " b") == "x 2 . b ."
    assert clean_report("x 2" + "." * 256 + " b", "mimic") == "x . b ."
    assert clean_report("x 2" + "." * 257 + " b", "mimic") == "x 2 . b ."


def test_cleaned_text_has_no_capital_and_ends_with_a_period() -> None:
    pieces = ["Heart ", "No ", ". ", "1. ", "(A)", "..", "\n", "  ", "3.5", '"', "-"]
    draw = random.Random(0)
    for _ in range(300):
        cleaned = clean_report("".join(draw.choices(pieces, k=12)), "mimic")
        assert cleaned == cleaned.lower()
        assert cleaned.endswith(" .")
        assert not set(cleaned) & set(",?;*!%^&_+():<=>@[]{}\"/\\'")
        assert all(word == "." or "." not in word for word in cleaned.split())


def test_unknown_style_is_named() -> None:
    with pytest.raises(ValueError, match="style must be one of iu, mimic, got 'r2gen'"):
        clean_report("Lungs clear", "r2gen")  # type: ignore[arg-type]


def test_first_words_counts_as_a_split_at_single_spaces() -> None:
    text = "no acute  disease ."
    for count in range(1, 7):
        assert first_words(text, count) == " ".join(text.split(" ")[:count])
