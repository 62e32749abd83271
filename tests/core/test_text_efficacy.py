"""Clinical efficacy: a table worked out by hand, scikit-learn, and what each mode changes."""

import numpy as np
import pytest
from medbundles.text.chest_phrases import CHEXPERT_CONDITIONS
from medbundles.text.efficacy import COMPETITION_CONDITIONS, clinical_efficacy
from sklearn.metrics import precision_recall_fscore_support

AVERAGES = {"example": "samples", "micro": "micro", "macro": "macro"}
SCORES = ("precision", "recall", "f1")


def table(*reports: dict[str, int]) -> np.ndarray:
    return np.array([[report.get(name, 0) for name in CHEXPERT_CONDITIONS] for report in reports])


TRUE = table(
    {"cardiomegaly": 1, "edema": 1, "fracture": 2},
    {"edema": 2},
    {"fracture": 1},
    {"edema": 3, "fracture": 1},
)
PREDICTED = table(
    {"cardiomegaly": 1, "atelectasis": 1},  # 1 right, 1 too many, 1 missed
    {},  # rightly silent
    {"fracture": 1, "edema": 1},  # 1 right, 1 too many
    {"edema": 1},  # wrong and 1 missed; with uncertain as positive: right and 1 missed
)
# Of the 14 conditions 4 occur: with empty="one" each of the other 10 counts 1 in the macro averages.
BY_HAND = {
    ("negative", "zero"): {
        "example": (1 / 4, 3 / 8, 7 / 24),
        "micro": (2 / 5, 2 / 4, 4 / 9),
        "macro": (2 / 14, 1.5 / 14, 5 / 3 / 14),
    },
    ("negative", "one"): {
        "example": (2 / 4, 5 / 8, 13 / 24),
        "micro": (2 / 5, 2 / 4, 4 / 9),
        "macro": (12 / 14, 11.5 / 14, 35 / 3 / 14),
    },
    ("positive", "zero"): {
        "example": (1 / 2, 1 / 2, 11 / 24),
        "micro": (3 / 5, 3 / 5, 3 / 5),
        "macro": (2.5 / 14, 2 / 14, 13 / 6 / 14),
    },
    ("positive", "one"): {
        "example": (3 / 4, 3 / 4, 17 / 24),
        "micro": (3 / 5, 3 / 5, 3 / 5),
        "macro": (12.5 / 14, 12 / 14, 73 / 6 / 14),
    },
}


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize(("uncertain", "empty"), BY_HAND)
def test_scores_of_four_reports_by_hand(uncertain: str, empty: str, average: str) -> None:
    scores = clinical_efficacy(PREDICTED, TRUE, uncertain=uncertain, empty=empty)
    found = [scores[f"ce_{average}_{name}"] for name in SCORES]
    assert found == pytest.approx(BY_HAND[uncertain, empty][average], abs=1e-12)
    assert scores["share_without_positives"] == 1 / 4


def test_the_five_competition_conditions_by_hand() -> None:
    zero, one = (clinical_efficacy(PREDICTED, TRUE, empty=empty) for empty in ("zero", "one"))
    assert [zero[f"ce5_example_{name}"] for name in SCORES] == pytest.approx([1 / 8] * 3)
    assert [one[f"ce5_example_{name}"] for name in SCORES] == pytest.approx([3 / 8] * 3)
    assert [zero[f"ce5_micro_{name}"] for name in SCORES] == pytest.approx([1 / 4, 1 / 2, 1 / 3])
    assert [zero[f"ce5_macro_{name}"] for name in SCORES] == pytest.approx([1 / 5] * 3)
    assert [one[f"ce5_macro_{name}"] for name in SCORES] == pytest.approx([3 / 5] * 3)
    assert zero["ce5_share_without_positives"] == 3 / 4


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("uncertain", ["negative", "positive"])
def test_scores_equal_those_of_scikit_learn(uncertain: str, average: str) -> None:
    rng = np.random.default_rng(0)
    predicted, true = rng.choice(4, p=[0.7, 0.1, 0.15, 0.05], size=(2, 60, 14))
    counted = [1] if uncertain == "negative" else [1, 3]
    scores = clinical_efficacy(predicted, true, uncertain=uncertain)
    competition = [CHEXPERT_CONDITIONS.index(name) for name in COMPETITION_CONDITIONS]
    for prefix, columns in (("ce", list(range(14))), ("ce5", competition)):
        reference = precision_recall_fscore_support(
            np.isin(true[:, columns], counted),
            np.isin(predicted[:, columns], counted),
            average=AVERAGES[average],
            zero_division=0,
        )
        found = [scores[f"{prefix}_{average}_{name}"] for name in SCORES]
        assert found == pytest.approx(reference[:3], abs=1e-12)


def test_perfect_reports_reach_one_only_when_silence_counts() -> None:
    states = TRUE % 3  # without the uncertain state
    scores = clinical_efficacy(states, states, empty="one")
    assert all(value == 1 for name, value in scores.items() if "share" not in name)
    assert clinical_efficacy(states, states)["ce_example_f1"] == 1 - scores["share_without_positives"]


def test_silence_about_a_finding_is_no_credit_in_either_mode() -> None:
    silent, sick = np.zeros((3, 14), dtype=int), np.ones((3, 14), dtype=int)
    for empty in ("zero", "one"):
        scores = clinical_efficacy(silent, sick, empty=empty)
        assert {value for name, value in scores.items() if "share" not in name} == {0.0}


def test_negative_and_blank_are_the_same() -> None:
    blank = np.where(TRUE == 2, 0, TRUE)
    assert clinical_efficacy(PREDICTED, TRUE) == clinical_efficacy(PREDICTED, blank)


@pytest.mark.parametrize(
    ("predicted", "true", "message"),
    [
        (TRUE[:3], TRUE, r"same reports, got \(3, 14\) and \(4, 14\)"),
        (TRUE[:, :13], TRUE, r"predicted must be \(N, 14\) with N > 0, got \(4, 13\)"),
        (TRUE[:0], TRUE[:0], r"predicted must be .* got \(0, 14\)"),
        (TRUE, np.where(TRUE == 0, -100, TRUE), r"true must hold states 0, 1, 2 or 3, got \[-100\]"),
    ],
)
def test_bad_tables_are_refused(predicted: np.ndarray, true: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clinical_efficacy(predicted, true)


def test_unknown_modes_are_refused() -> None:
    with pytest.raises(ValueError, match="empty='nan'"):
        clinical_efficacy(TRUE, TRUE, empty="nan")  # type: ignore[arg-type]
