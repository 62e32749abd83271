"""Cross-validation folds: no patient crosses, grades are balanced, ungraded cases only train."""

from __future__ import annotations

import logging
import random

import pytest
from react_kd.cases import UNGRADED, grade_of
from react_kd.folds import fold_cases

FOLDS = 3


def cohort() -> list[dict]:
    """24 graded patients with one to three scans each, some of them ungraded, and 10 ungraded patients."""
    cases = []
    for patient in range(24):
        for scan in range(1 + patient % 3):
            label = patient % 3 if scan < 2 else None
            cases.append({"patient_id": f"p{patient}", "scan_id": f"p{patient}s{scan}", "label": label})
    return cases + [{"patient_id": f"u{k}", "scan_id": f"u{k}"} for k in range(10)]


def scans(cases: list[dict]) -> list[str]:
    return [case["scan_id"] for case in cases]


@pytest.mark.parametrize("seed", range(5))
def test_no_patient_crosses_a_split(seed: int) -> None:
    for fold in range(FOLDS):
        training, validation = fold_cases(cohort(), fold, FOLDS, seed)
        patients = [{case["patient_id"] for case in side} for side in (training, validation)]
        assert all(patients)
        assert not patients[0] & patients[1]


def test_every_graded_case_is_validated_once() -> None:
    held_out = [scan for fold in range(FOLDS) for scan in scans(fold_cases(cohort(), fold, FOLDS)[1])]
    graded = [case["scan_id"] for case in cohort() if grade_of(case) != UNGRADED]
    assert sorted(held_out) == sorted(graded)


def test_ungraded_cases_only_train_and_never_with_their_patient_in_validation() -> None:
    for fold in range(FOLDS):
        training, validation = fold_cases(cohort(), fold, FOLDS)
        assert all(grade_of(case) != UNGRADED for case in validation)
        assert {f"u{k}" for k in range(10)} <= set(scans(training))
        validated = {case["patient_id"] for case in validation}
        expected = [case["scan_id"] for case in cohort() if case["patient_id"] not in validated]
        assert sorted(scans(training)) == sorted(expected)
        assert len(expected) + len(validation) < len(cohort())


def test_grades_are_stratified() -> None:
    for fold in range(FOLDS):
        _, validation = fold_cases(cohort(), fold, FOLDS)
        counts = [sum(grade_of(case) == grade for case in validation) for grade in range(3)]
        assert min(counts) >= 2


def test_split_depends_on_seed_and_ids_alone() -> None:
    first = fold_cases(cohort(), 0, FOLDS, seed=4)
    shuffled = cohort()
    random.Random(1).shuffle(shuffled)
    assert fold_cases(shuffled, 0, FOLDS, seed=4) == first
    assert any(scans(fold_cases(cohort(), 0, FOLDS, seed=s)[1]) != scans(first[1]) for s in range(4))


@pytest.mark.parametrize(("fold", "folds"), [(3, 3), (-1, 3), (0, 1)])
def test_fold_out_of_range(fold: int, folds: int) -> None:
    with pytest.raises(ValueError, match=f"got fold={fold} of folds={folds}"):
        fold_cases(cohort(), fold, folds)


def test_too_few_patients() -> None:
    cases = [{"patient_id": "a", "scan_id": f"a{k}", "label": k % 3} for k in range(6)]
    with pytest.raises(ValueError, match="folds=3 need as many graded patients, got 1"):
        fold_cases(cases, 0)


def test_rare_grade_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    cases = [case for case in cohort() if case.get("label") != 2 or case["patient_id"] == "p2"]
    with caplog.at_level(logging.WARNING):
        fold_cases(cases, 0)
    assert "grade 2 has 1 patients for 3 folds" in caplog.text
