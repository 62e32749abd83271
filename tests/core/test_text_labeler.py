"""Rule labeler: chexpert-labeler's own examples, cues of negation and doubt, raw and cleaned text alike."""

import numpy as np
import pytest
from medbundles.text.cleaning import clean_report
from medbundles.text.labeler import (
    BLANK,
    CHEXPERT_CONDITIONS,
    NEGATIVE,
    POSITIVE,
    UNCERTAIN,
    label_report,
    label_reports,
)

# The sample reports of chexpert-labeler and the labels it gives them (sample_reports.csv, labeled_reports.csv
# of github.com/stanfordmlgroup/chexpert-labeler; MIT License, Copyright (c) 2018
# Stanford Machine Learning Group).
SAMPLE_REPORTS = {
    "Heart size normal and lungs are clear. No edema or pneumonia. No effusion": {
        "no_finding": POSITIVE,
        "cardiomegaly": NEGATIVE,
        "edema": NEGATIVE,
        "pneumonia": NEGATIVE,
        "pleural_effusion": NEGATIVE,
    },
    "1. Left pleural effusion with adjacent atelectasis. Right effusion is also present.\n\n"
    "2. Cardiomegaly without overt edema.": {
        "cardiomegaly": POSITIVE,
        "edema": NEGATIVE,
        "atelectasis": POSITIVE,
        "pleural_effusion": POSITIVE,
    },
    "Minimal patchy airspace disease within the lingula, may reflect atelectasis or consolidation.": {
        "lung_opacity": POSITIVE,
        "consolidation": UNCERTAIN,
        "atelectasis": UNCERTAIN,
    },
    "1. Stable mild cardiomegaly. 2. Hyperexpanded but clear lungs.": {"cardiomegaly": POSITIVE},
}


def findings(text: str) -> dict[str, int]:
    """The states that are not blank, without No Finding."""
    states = dict(zip(CHEXPERT_CONDITIONS, label_report(text), strict=True))
    return {name: state for name, state in states.items() if state != BLANK and name != "no_finding"}


def no_finding(text: str) -> int:
    return label_report(text)[CHEXPERT_CONDITIONS.index("no_finding")]


@pytest.mark.parametrize("text", SAMPLE_REPORTS)
def test_labels_of_chexpert_labeler_are_reproduced(text: str) -> None:
    expected = [SAMPLE_REPORTS[text].get(name, BLANK) for name in CHEXPERT_CONDITIONS]
    assert label_report(text) == expected


POSITIVES = {
    "there is a small left pleural effusion .": {"pleural_effusion"},
    "the heart is moderately enlarged .": {"cardiomegaly"},
    "enlargement of the cardiac silhouette .": {"cardiomegaly"},
    "a 6 mm nodule in the right upper lung .": {"lung_lesion"},
    "a left sided catheter terminates over the svc .": {"support_devices"},
    "widened mediastinum .": {"enlarged_cardiomediastinum"},
    "hazy opacity in the right lower zone consistent with pneumonia .": {"lung_opacity", "pneumonia"},
    "pulmonary vascular congestion .": {"edema"},
    "plate-like atelectasis at the left base .": {"atelectasis"},
    "healed rib fractures and biapical pleural thickening .": {"fracture", "pleural_other"},
    "no change in the large right pneumothorax .": {"pneumothorax"},
    "resolving consolidation of the left lower lobe .": {"consolidation"},
}
NEGATIVES = {
    "no focal opacity or effusion .": {"lung_opacity", "pleural_effusion"},
    "no pneumothorax .": {"pneumothorax"},
    "heart size and mediastinal contours are within normal limits .": {
        "cardiomegaly",
        "enlarged_cardiomediastinum",
    },
    "the heart is not enlarged .": {"cardiomegaly"},
    "resolved effusion .": {"pleural_effusion"},
    "the effusion has resolved .": {"pleural_effusion"},
    "a pleural effusion or pneumothorax is not seen .": {"pleural_effusion", "pneumothorax"},
    "lungs are free of consolidation and edema .": {"consolidation", "edema"},
    "pneumothorax: none.": {"pneumothorax"},
    "interval removal of the right picc .": {"support_devices"},
    "no mass nodule or acute fracture .": {"lung_lesion", "fracture"},
    "negative for pneumonia without atelectasis .": {"pneumonia", "atelectasis"},
}
UNCERTAINS = {
    "pneumonia cannot be excluded .": {"pneumonia"},
    "cannot exclude a small effusion .": {"pleural_effusion"},
    "it is difficult to exclude edema .": {"edema"},
    "possible small left apical pneumothorax .": {"pneumothorax"},
    "findings suspicious for malignancy .": {"lung_lesion"},
    "atelectasis versus consolidation .": {"atelectasis", "consolidation"},
    "left basilar scarring and/or effusion .": {"lung_opacity", "pleural_effusion"},
    "heart size is borderline .": {"cardiomegaly"},
    "the cardiomediastinal silhouette is unchanged .": {"enlarged_cardiomediastinum"},
    "a rib fracture may be present .": {"fracture"},
}


@pytest.mark.parametrize(
    ("text", "names", "state"),
    [
        (text, names, state)
        for state, table in ((POSITIVE, POSITIVES), (NEGATIVE, NEGATIVES), (UNCERTAIN, UNCERTAINS))
        for text, names in table.items()
    ],
)
def test_sentences_of_one_state(text: str, names: set[str], state: int) -> None:
    assert findings(text) == dict.fromkeys(names, state)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("opacity may represent pneumonia", {"lung_opacity": POSITIVE, "pneumonia": UNCERTAIN}),
        ("no edema but there is an effusion", {"edema": NEGATIVE, "pleural_effusion": POSITIVE}),
        ("stable cardiomegaly without edema", {"cardiomegaly": POSITIVE, "edema": NEGATIVE}),
        ("no effusion with a tube in place", {"pleural_effusion": NEGATIVE, "support_devices": POSITIVE}),
        ("no edema is seen and the heart is enlarged", {"edema": NEGATIVE, "cardiomegaly": POSITIVE}),
        ("edema has resolved and effusion persists", {"edema": NEGATIVE, "pleural_effusion": POSITIVE}),
        ("edema is seen and pneumonia cannot be excluded", {"edema": POSITIVE, "pneumonia": UNCERTAIN}),
        ("atelectasis rather than pneumonia", {"atelectasis": POSITIVE, "pneumonia": NEGATIVE}),
        ("possible effusion and cardiomegaly", {"pleural_effusion": UNCERTAIN, "cardiomegaly": POSITIVE}),
        ("the heart is normal in size and the mediastinum is widened",
         {"cardiomegaly": NEGATIVE, "enlarged_cardiomediastinum": POSITIVE}),
    ],
)  # fmt: skip
def test_a_cue_reaches_no_further_than_its_clause(text: str, expected: dict[str, int]) -> None:
    assert findings(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "pericardial effusion", "calcified nodule", "vertebral collapse", "kerley b lines", "portable film",
        "massive hiatal hernia", "the heart border is obscured by an enlarged hiatal hernia",
    ],
)  # fmt: skip
def test_lookalikes_are_not_the_finding(text: str) -> None:
    lookalike_of = {"pleural_effusion", "lung_lesion", "atelectasis", "support_devices", "cardiomegaly"}
    assert not lookalike_of & set(findings(text))


def test_positive_counts_before_uncertain_before_negative() -> None:
    sentences = ["no effusion", "possible effusion", "left effusion"]
    states = [NEGATIVE, UNCERTAIN, POSITIVE]
    for last in range(3):
        for order in (1, -1):
            text = " . ".join(sentences[: last + 1][::order])
            assert findings(text) == {"pleural_effusion": states[last]}


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("lungs are clear .", POSITIVE),
        ("no pneumothorax or effusion . a right picc ends in the svc .", POSITIVE),
        ("heart size is normal . possible effusion .", BLANK),
        ("hyperinflated lungs . heart size is normal .", BLANK),
        ("no emphysema . heart size is normal .", POSITIVE),
        ("tortuous aorta", BLANK),
        ("", BLANK),
        (" .", BLANK),
    ],
)
def test_no_finding(text: str, state: int) -> None:
    assert no_finding(text) == state


def test_decimals_and_list_numbers_do_not_end_findings() -> None:
    text = "1. A 1.5 cm nodule, unchanged.\n2. No\neffusion."
    assert findings(text) == {"lung_lesion": POSITIVE, "pleural_effusion": NEGATIVE}


@pytest.mark.parametrize(
    "raw",
    [
        *SAMPLE_REPORTS,
        "No pneumothorax, effusion,\nor consolidation. Heart size is NORMAL. Right-sided PICC.",
        "The heart, lungs, and mediastinum are normal. Left basilar scarring and/or effusion, unchanged.",
    ],
)
def test_cleaning_changes_no_label(raw: str) -> None:
    assert label_report(clean_report(raw)) == label_report(raw)


def test_many_reports_are_one_table_in_their_order() -> None:
    texts = list(SAMPLE_REPORTS)
    table = label_reports(texts)
    assert table.dtype == np.int64
    assert table.tolist() == [label_report(text) for text in texts]
    assert label_reports([]).shape == (0, 14)
    with pytest.raises(TypeError, match="got one str"):
        label_reports("no effusion")
