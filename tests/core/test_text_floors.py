"""Floors of report generation: training reports only, chosen without the test set."""

from collections.abc import Callable

import pytest
from medbundles.text.floors import constant_report, most_common_report, random_reports
from medbundles.text.nlg import bleu

NORMAL = "heart size normal . lungs clear . no pleural effusion ."
LONGER = "the heart is normal in size . the lungs are clear . no pleural effusion or pneumothorax is seen ."
DEVICE = "right picc in good position . no pneumothorax ."
TRAIN = (
    [DEVICE] * 5 + [NORMAL] * 4 + [LONGER] * 3 + [f"nodule number {i} in the left lung ." for i in range(60)]
)
VALIDATION = [LONGER.replace("size", "contour"), LONGER.replace("is seen", "is present"), NORMAL]


def test_most_common_report_is_the_mode_and_the_first_of_a_tie() -> None:
    assert most_common_report(TRAIN, 3) == [DEVICE] * 3
    assert most_common_report(["b", "a", "b", "a"], 1) == ["b"]


def test_random_reports_are_training_reports_and_repeat_with_the_seed() -> None:
    drawn = random_reports(TRAIN, 500, seed=1)
    assert len(drawn) == 500
    assert set(drawn) <= set(TRAIN)
    assert len(set(drawn)) > 40
    assert drawn == random_reports(TRAIN, 500, seed=1)
    assert drawn != random_reports(TRAIN, 500, seed=2)
    assert 15 < drawn.count(DEVICE) < 60  # 5 of 72 reports: drawn by how often they occur


def test_constant_report_is_the_best_of_the_commonest_on_validation() -> None:
    chosen = constant_report(TRAIN, VALIDATION, 4)
    assert chosen == [LONGER] * 4
    scores = {report: bleu([report] * 3, VALIDATION)["bleu4"] for report in TRAIN}
    assert scores[LONGER] == max(scores.values()) > scores[NORMAL] > 0


def test_constant_report_looks_at_its_candidates_only() -> None:
    assert constant_report(TRAIN, VALIDATION, 2, candidates=2) == [NORMAL] * 2
    assert constant_report(TRAIN, VALIDATION, 2, candidates=1) == most_common_report(TRAIN, 2)
    rare = TRAIN[-1]
    assert constant_report(TRAIN, [rare], 1, candidates=40) != [rare]
    assert constant_report(TRAIN, [rare], 1, candidates=100) == [rare]


def test_without_any_common_phrase_the_commoner_report_wins() -> None:
    assert constant_report(TRAIN, ["unrelated words only"], 1) == [DEVICE]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: most_common_report([], 1), "made from training reports, got none"),
        (lambda: random_reports([], 1, seed=0), "made from training reports, got none"),
        (lambda: constant_report([], VALIDATION, 1), "made from training reports, got none"),
        (lambda: most_common_report(TRAIN, 0), "n at least 1, got n=0"),
        (lambda: random_reports(TRAIN, -1, seed=0), "n at least 1, got n=-1"),
        (lambda: constant_report(TRAIN, VALIDATION, 1, candidates=0), "candidates must be at least 1"),
        (lambda: constant_report(TRAIN, [], 1), "at least one"),
    ],
)
def test_nothing_to_choose_from_is_an_error(make: Callable[[], list[str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
