"""The facts of the simulated chest CTs and what the reports say of them."""

from __future__ import annotations

import numpy as np
import pytest
from rect_vlm.findings import FINDINGS
from rect_vlm.phantom_facts import LOBES, LOWER, Facts, Fluid, Focus, fact_labels
from rect_vlm.phantom_rates import draw_facts, visible_lobes
from rect_vlm.phantom_report import write_report
from rect_vlm.phantom_wordings import NORMAL_IMPRESSION
from rect_vlm.report_facts import PRESENT
from rect_vlm.report_facts import facts as facts_of
from rect_vlm.report_labeler import label_reports

Case = tuple[Facts, str, str]


@pytest.fixture(scope="module")
def drawn() -> list[Case]:
    """300 random cases: facts, findings and impression."""
    facts = [draw_facts(np.random.default_rng([1, k])) for k in range(300)]
    return [(found, *write_report(found, np.random.default_rng([2, k]))) for k, found in enumerate(facts)]


def labels_of(drawn: list[Case]) -> np.ndarray:
    return np.array([fact_labels(facts) for facts, _, _ in drawn])


def test_rule_labels_of_the_report_are_the_labels_of_the_facts(drawn: list[Case]) -> None:
    expected = labels_of(drawn)
    assert np.array_equal(label_reports([findings for _, findings, _ in drawn]), expected)
    both = [f"FINDINGS:\n{findings}\n\nIMPRESSION:\n{impression}" for _, findings, impression in drawn]
    assert np.array_equal(label_reports(both), expected)
    assert any("was not observed" in findings for _, findings, _ in drawn)


def test_findings_occur_often_enough_and_not_alike(drawn: list[Case]) -> None:
    rates = dict(zip(FINDINGS, labels_of(drawn).mean(axis=0), strict=True))
    assert all(0.1 < rate < 0.5 for rate in rates.values()), rates
    assert max(rates.values()) > 1.6 * min(rates.values())
    assert 0.02 < np.mean(labels_of(drawn).sum(axis=1) == 0) < 0.2


def test_findings_of_one_cause_come_together(drawn: list[Case]) -> None:
    labels = dict(zip(FINDINGS, labels_of(drawn).T, strict=True))
    for first, second in (
        ("Pleural effusion", "Atelectasis"),
        ("Pleural effusion", "Cardiomegaly"),
        ("Pleural effusion", "Interlobular septal thickening"),
        ("Arterial wall calcification", "Coronary artery wall calcification"),
        ("Lung nodule", "Lymphadenopathy"),
        ("Emphysema", "Bronchiectasis"),
        ("Consolidation", "Lung opacity"),
    ):
        with_first, without = (labels[second][labels[first] == there].mean() for there in (1, 0))
        assert with_first > 1.4 * without, (first, second)


def test_ground_glass_and_consolidation_are_lung_opacities() -> None:
    opacity, consolidation = FINDINGS.index("Lung opacity"), FINDINGS.index("Consolidation")
    focus = (Focus("left upper", 50),)
    assert fact_labels(Facts()) == [0] * len(FINDINGS)
    for facts, dense in ((Facts(ground_glass=focus), 0), (Facts(consolidation=focus), 1)):
        labels = fact_labels(facts)
        assert (labels[opacity], labels[consolidation], sum(labels)) == (1, dense, 1 + dense)


def test_report_names_every_lobe_side_and_size(drawn: list[Case]) -> None:
    for facts, findings, impression in drawn:
        said = facts_of(findings)
        expected = {("Lung nodule", focus.lobe, PRESENT) for focus in facts.nodules}
        expected |= {("Consolidation", focus.lobe, PRESENT) for focus in facts.consolidation}
        expected |= {("Atelectasis", lobe, PRESENT) for lobe in facts.atelectasis}
        expected |= {("Bronchiectasis", lobe, PRESENT) for lobe in facts.bronchiectasis}
        opacities = facts.ground_glass + facts.consolidation
        expected |= {("Lung opacity", focus.lobe, PRESENT) for focus in opacities}
        if facts.effusion:
            expected |= {("Pleural effusion", side, PRESENT) for side in facts.effusion.sides}
            assert facts.effusion.size in findings.lower()
        located = {
            fact for fact in said if fact[0] in {name for name, _, _ in expected} and fact[2] == PRESENT
        }
        assert located == expected, findings
        sizes = [focus.mm for focus in (*facts.nodules, *facts.consolidation)]
        sizes += [mm for mm in (facts.pericardial_mm, facts.hernia_mm, facts.nodes_mm) if mm]
        assert all(f"{mm} mm" in findings for mm in sizes), findings
        normal = impression.rstrip(".") in NORMAL_IMPRESSION
        assert normal == (not any(fact_labels(facts)[1:]))


def test_lesions_are_not_hidden(drawn: list[Case]) -> None:
    for facts, _, _ in drawn:
        solid = {focus.lobe for focus in facts.consolidation}
        others = {focus.lobe for focus in facts.nodules + facts.ground_glass}
        assert not solid & others
        assert solid | others <= set(visible_lobes(facts.effusion))
        assert len(solid) == len(facts.consolidation)


def test_much_fluid_covers_the_lower_lobes_of_its_sides() -> None:
    assert visible_lobes(None) == visible_lobes(Fluid(("left",), 20)) == list(LOBES)
    assert set(LOBES) - set(visible_lobes(Fluid(("left",), 50))) == {LOWER["left"]}
    assert [Fluid(("left",), mm).size for mm in (12, 27, 28, 44, 45, 60)] == [
        "small", "small", "moderate", "moderate", "large", "large"
    ]  # fmt: skip


def test_wordings_vary_and_say_the_same() -> None:
    facts = Facts(effusion=Fluid(("left",), 30), cardiomegaly="mild")
    reports = [write_report(facts, np.random.default_rng(k))[0] for k in range(100)]
    assert len(set(reports)) > 60
    assert len({tuple(row) for row in label_reports(reports)}) == 1
