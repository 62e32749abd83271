"""Facts of reports: finding, place and polarity, and what does not make a fact of its own."""

import pytest
from rect_vlm.report_facts import Fact, fact_f1, facts

PLACES = {
    "A nodule is observed in the right lung upper lobe.": {("Lung nodule", "right upper", "present")},
    "A nodule is observed in the upper lobe of the right lung.": {("Lung nodule", "right upper", "present")},
    "Atelectasis is seen in the left lower lobe.": {("Atelectasis", "left lower", "present")},
    "Consolidation in the right lung middle and lower lobes.": {
        ("Consolidation", "right middle", "present"),
        ("Consolidation", "right lower", "present"),
    },
    "Bronchiectasis in the right upper lobe and the left lung lower lobe.": {
        ("Bronchiectasis", "right upper", "present"),
        ("Bronchiectasis", "left lower", "present"),
    },
    "Emphysematous changes were observed in both lungs.": {
        ("Emphysema", "right", "present"),
        ("Emphysema", "left", "present"),
    },
    "Emphysema in the upper lobes of both lungs.": {
        ("Emphysema", "right upper", "present"),
        ("Emphysema", "left upper", "present"),
    },
    "Ground glass opacity in the inferior lingular segment of the left lung.": {
        ("Lung opacity", "left lingula", "present")
    },
    "Sequelae changes at the apical level of the left lung.": {
        ("Pulmonary fibrotic sequela", "left upper", "present")
    },
    "Bilateral pleural effusion in the lower zones.": {
        ("Pleural effusion", "right", "present"),
        ("Pleural effusion", "left", "present"),
    },
    "In the left lung, there is a nodule.": {("Lung nodule", "left", "present")},
    "Mosaic attenuation pattern is observed.": {("Mosaic attenuation pattern", "", "present")},
    "A pacemaker is seen on the left chest wall.": {("Medical material", "", "present")},
    "Pleural effusion was not detected.": {("Pleural effusion", "", "absent")},
    "Possible atelectasis in the right lower lobe.": {("Atelectasis", "right lower", "possible")},
    "Trachea and both main bronchi are open.": set(),
}


@pytest.mark.parametrize("text", PLACES)
def test_place_and_polarity(text: str) -> None:
    assert facts(text) == PLACES[text]


def test_impression_that_repeats_a_finding_without_its_place_adds_no_fact() -> None:
    text = "FINDINGS:\nThere is consolidation in the right lower lobe.\n\nIMPRESSION:\nConsolidation."
    assert facts(text) == {("Consolidation", "right lower", "present")}
    assert facts("Nodule in the left lung. A nodule in the left upper lobe.") == {
        ("Lung nodule", "left upper", "present")
    }


def test_sides_may_differ_in_polarity() -> None:
    text = "There is pleural effusion on the right. No pleural effusion was detected on the left."
    assert facts(text) == {("Pleural effusion", "right", "present"), ("Pleural effusion", "left", "absent")}


def test_of_contradicting_statements_the_strongest_counts() -> None:
    text = "No consolidation was detected. Possible consolidation."
    assert facts(text) == {("Consolidation", "", "possible")}
    assert facts(text + " Consolidation is present.") == {("Consolidation", "", "present")}


def test_mirrored_report_has_mirrored_facts() -> None:
    swapped = {"right": "left", "left": "right"}
    for text, found in PLACES.items():
        mirror = " ".join(swapped.get(word, word) for word in text.rstrip(".").split()) + "."
        sides = {
            (name, " ".join(swapped.get(word, word) for word in place.split()), p) for name, place, p in found
        }
        assert facts(mirror) == sides


def test_f1_of_facts() -> None:
    one: Fact = ("Lung nodule", "right upper", "present")
    two: Fact = ("Lung nodule", "left upper", "present")
    three: Fact = ("Pleural effusion", "", "absent")
    assert fact_f1(set(), set()) == 1.0
    assert fact_f1({one}, set()) == 0.0
    assert fact_f1({one, three}, {two, three}) == pytest.approx(0.5)
    assert fact_f1({one}, {one, two, three}) == pytest.approx(2 * 1 / 4)
