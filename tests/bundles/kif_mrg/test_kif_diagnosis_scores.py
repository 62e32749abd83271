"""Scores of the diagnosis head: equal to scikit-learn on the known labels, with and without weights."""

from __future__ import annotations

import numpy as np
import pytest
from kif_mrg.conditions import IGNORE
from kif_mrg.diagnosis_scores import common_states, condition_scores, confusion, score_diagnosis, weighted_auc
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, roc_auc_score

N, C = 40, 5
RNG = np.random.default_rng(0)
PROBS = RNG.dirichlet(np.ones(4), size=(N, C)).transpose(0, 2, 1)  # (N, 4, C)
PROBS[:, :, 1] = PROBS[:, :, 1].round(1)  # ties
LABELS = RNG.integers(0, 4, (N, C))
LABELS[RNG.random((N, C)) < 0.2] = IGNORE
LABELS[:, 3] = np.where(LABELS[:, 3] == 1, 2, LABELS[:, 3])  # never positive
LABELS[:, 4] = IGNORE
WEIGHTS = RNG.integers(0, 3, (6, N)).astype(float)
POSITIVES = pytest.mark.parametrize("positive", [(1,), (1, 3)])


@POSITIVES
def test_every_condition_agrees_with_scikit_learn(positive: tuple[int, ...]) -> None:
    found = condition_scores(PROBS, LABELS, positive, WEIGHTS)
    states = PROBS.argmax(axis=1)
    for c in range(3):
        known = LABELS[:, c] != IGNORE
        true, said = np.isin(LABELS[known, c], positive), np.isin(states[known, c], positive)
        chance = PROBS[known][:, list(positive), c].sum(axis=1)
        for r in range(6):
            w = WEIGHTS[r, known]
            expected = {
                "accuracy": accuracy_score(LABELS[known, c], states[known, c], sample_weight=w),
                "f1": f1_score(true, said, sample_weight=w),
                "auc": roc_auc_score(true, chance, sample_weight=w),
            }
            assert {name: values[r, c] for name, values in found.items()} == pytest.approx(expected)


def test_what_is_not_defined_is_nan() -> None:
    found = {name: values[0] for name, values in condition_scores(PROBS, LABELS, (1,)).items()}
    assert np.isnan(found["auc"][3])  # no positive
    assert found["f1"][3] == 0  # but the head names some
    assert np.isnan([values[4] for values in found.values()]).all()  # no label
    nothing = condition_scores(np.eye(4)[2][None, :, None].repeat(3, 0), [[2], [2], [0]], (1,))
    assert np.isnan(nothing["f1"]).all()  # nothing positive on either side
    assert nothing["accuracy"].item() == pytest.approx(2 / 3)


def test_summary_is_the_mean_over_conditions_that_are_ever_positive() -> None:
    scored = score_diagnosis(PROBS, LABELS, (1,), WEIGHTS)
    each = {name: values[0, :3].mean() for name, values in condition_scores(PROBS, LABELS, (1,)).items()}
    known = LABELS != IGNORE
    right = (PROBS.argmax(axis=1) == LABELS)[known].mean()
    expected = {"accuracy": right, "f1_macro": each["f1"], "auc_macro": each["auc"]}
    assert scored.values == pytest.approx(expected)
    again = score_diagnosis(PROBS, LABELS, (1,), np.ones((2, N)))
    assert {name: values[1] for name, values in again.replicates.items()} == pytest.approx(expected)
    assert all(len(values) == 6 for values in scored.replicates.values())


def test_a_split_without_a_positive_label_has_no_macro_scores() -> None:
    scored = score_diagnosis(PROBS, np.full((N, C), 2), (1,), WEIGHTS)
    assert np.isnan([scored.values["f1_macro"], scored.values["auc_macro"]]).all()
    assert 0 < scored.values["accuracy"] < 1


def test_auc_of_perfect_inverted_and_constant_scores() -> None:
    positive, ones = np.array([True, False, True, False]), np.ones((1, 4))
    assert weighted_auc(positive.astype(float), positive, ones) == 1
    assert weighted_auc(-positive.astype(float), positive, ones) == 0
    assert weighted_auc(np.zeros(4), positive, ones) == 0.5


def test_common_states_are_shares_and_blank_where_nothing_is_known() -> None:
    shares = common_states([[1, IGNORE], [1, IGNORE], [2, IGNORE], [IGNORE, IGNORE]])
    np.testing.assert_allclose(shares, [[0, 1], [2 / 3, 0], [1 / 3, 0], [0, 0]])


def test_confusion_agrees_with_scikit_learn() -> None:
    known = LABELS[:, 2] != IGNORE
    expected = confusion_matrix(LABELS[known, 2], PROBS.argmax(axis=1)[known, 2], labels=range(4))
    np.testing.assert_array_equal(confusion(PROBS, LABELS, 2), expected)
