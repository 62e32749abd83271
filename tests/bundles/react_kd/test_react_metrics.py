import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from medbundles.resampling import bootstrap_weights
from monai.metrics import CalibrationErrorMetric, compute_roc_auc
from react_kd import metrics
from scipy import stats
from sklearn import metrics as reference

CLASSES = ["well", "moderate", "poor"]


def cohort(n=60, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 3)
    logits = rng.normal(size=(n, 3)) + 1.2 * np.eye(3)[labels]
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if ties:
        probs = np.round(probs, 1)
        probs[:, 2] = 1 - probs[:, 0] - probs[:, 1]
    patients = [f"p{i // 2}" for i in range(n)]
    return probs, labels, patients


@pytest.mark.parametrize("ties", [False, True])
def test_auc_equals_sklearn_and_monai(ties):
    probs, labels, _ = cohort(ties=ties)
    one_hot = np.eye(3)[labels]
    auc = metrics.roc_auc(probs, labels)
    for name, average in (("per_class", None), ("macro", "macro"), ("micro", "micro")):
        np.testing.assert_allclose(auc[name], reference.roc_auc_score(one_hot, probs, average=average))
        tensors = torch.tensor(probs, dtype=torch.float64), torch.tensor(one_hot)
        monai = compute_roc_auc(*tensors, average="none" if average is None else average)
        np.testing.assert_allclose(auc[name], monai)


def test_auc_of_an_absent_class_is_nan_with_a_warning_and_micro_stays():
    probs, labels, _ = cohort()
    probs, labels = probs[labels < 2], labels[labels < 2]
    with pytest.warns(RuntimeWarning, match=r"undefined for class \[2\]"):
        auc = metrics.roc_auc(probs, labels)
    assert np.isnan(auc["per_class"]).tolist() == [False, False, True]
    assert np.isnan(auc["macro"])
    assert auc["micro"] == pytest.approx(reference.roc_auc_score(np.eye(3)[labels], probs, average="micro"))


@pytest.mark.parametrize("seed", range(3))
def test_classification_scores_equal_sklearn(seed):
    probs, labels, _ = cohort(seed=seed, n=20)
    predicted = probs.argmax(axis=1)
    confusion = metrics.confusion_matrix(probs, labels)
    np.testing.assert_array_equal(confusion, reference.confusion_matrix(labels, predicted))
    scores = metrics.classification_scores(confusion)
    options = {"average": "macro", "zero_division": 0}
    assert scores["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted))
    assert scores["precision"] == pytest.approx(reference.precision_score(labels, predicted, **options))
    assert scores["recall"] == pytest.approx(reference.recall_score(labels, predicted, **options))
    assert scores["f1"] == pytest.approx(reference.f1_score(labels, predicted, **options))


def test_a_class_never_seen_is_left_out_of_the_means_and_one_never_predicted_counts_as_zero():
    unseen = metrics.classification_scores(np.array([[3.0, 1, 0], [0, 4, 0], [0, 0, 0]]))
    assert unseen["recall"] == pytest.approx((3 / 4 + 1) / 2)
    missed = metrics.classification_scores(np.array([[3.0, 1, 0], [0, 4, 0], [2, 0, 0]]))
    assert missed["precision"] == pytest.approx((3 / 5 + 4 / 5 + 0) / 3)


def test_brier_score_equals_sklearn():
    probs, labels, _ = cohort()
    expected = reference.brier_score_loss(labels, probs, labels=[0, 1, 2], scale_by_half=False)
    assert metrics.brier_score(probs, labels) == pytest.approx(expected)


def test_calibration_error_equals_monai_on_the_top_class_and_its_own_bins():
    probs, labels, _ = cohort(n=150)
    confidence, correct = probs.max(axis=1), probs.argmax(axis=1) == labels
    monai = CalibrationErrorMetric(num_bins=15, include_background=True)
    monai(torch.tensor(confidence)[None, None], torch.tensor(correct)[None, None])
    value = metrics.calibration_error(probs, labels)
    assert value == pytest.approx(float(monai.aggregate()), abs=1e-6)
    bins = metrics.reliability_bins(probs, labels)
    gaps = bins["count"] * np.abs(bins["accuracy"] - bins["confidence"])
    assert value == pytest.approx(np.nansum(gaps) / 150)
    assert bins["count"].sum() == 150
    assert np.isnan(bins["accuracy"][bins["count"] == 0]).all()


def test_calibration_error_of_certain_and_right_is_0_and_of_certain_and_wrong_is_1():
    labels = np.array([0, 1, 2, 0])
    assert metrics.calibration_error(np.eye(3)[labels], labels) == 0
    assert metrics.calibration_error(np.eye(3)[(labels + 1) % 3], labels) == 1


def test_net_benefit_equals_dcurves_for_each_class():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from dcurves import dca

    probs, labels, _ = cohort()
    thresholds = np.linspace(0.01, 0.99, 50)
    ours = metrics.net_benefit(probs, labels, thresholds)
    for k in range(3):
        frame = pd.DataFrame({"y": (labels == k).astype(int), "p": probs[:, k]})
        table = dca(data=frame, outcome="y", modelnames=["p"], thresholds=thresholds)
        for model, curve in (("p", ours["per_class"][k]), ("all", ours["all_per_class"][k])):
            theirs = table[table.model == model].sort_values("threshold").net_benefit
            np.testing.assert_allclose(curve, theirs, atol=1e-12)
    np.testing.assert_allclose(ours["all_macro"], 1 / 3 - 2 / 3 * thresholds / (1 - thresholds), atol=1e-12)
    np.testing.assert_allclose(ours["macro"], ours["per_class"].mean(axis=0))


def test_a_weighted_metric_equals_the_metric_of_repeated_cases():
    probs, labels, patients = cohort(ties=True)
    weights = bootstrap_weights(patients, 4, seed=3)
    drawn = metrics.evaluate(probs, labels, CLASSES, patients, n_bootstrap=0)["metrics"].keys()
    at_once = metrics._scores(probs, labels, CLASSES, weights)
    assert at_once.keys() == drawn
    benefit = metrics.net_benefit(probs, labels, weights=weights)["macro"]
    for r, weight in enumerate(weights):
        rows = np.repeat(np.arange(len(labels)), weight.astype(int))
        one_by_one = metrics._scores(probs[rows], labels[rows], CLASSES, None)
        for name, values in at_once.items():
            assert values[r] == pytest.approx(float(one_by_one[name])), name
        np.testing.assert_allclose(benefit[r], metrics.net_benefit(probs[rows], labels[rows])["macro"])


def test_bootstrap_interval_of_the_accuracy_agrees_with_scipy():
    probs, labels, _ = cohort(n=90)
    correct = (probs.argmax(axis=1) == labels).astype(float)
    result = metrics.evaluate(probs, labels, CLASSES, [str(i) for i in range(90)], n_bootstrap=4000)
    rng = np.random.default_rng(5)
    theirs = stats.bootstrap((correct,), np.mean, n_resamples=4000, method="percentile", random_state=rng)
    _, low, high = metrics.value_and_interval(result, "accuracy")
    np.testing.assert_allclose([low, high], theirs.confidence_interval, atol=0.02)


def test_evaluation_reports_counts_and_ordered_intervals():
    probs, labels, patients = cohort()
    result = metrics.evaluate(probs, labels, CLASSES, patients, n_bootstrap=200)
    assert (result["n_cases"], result["n_patients"]) == (60, 30)
    assert result["support"] == {"well": 20, "moderate": 20, "poor": 20}
    assert result["metrics"]["auc_poor"]["value"] == pytest.approx(
        reference.roc_auc_score(labels == 2, probs[:, 2])
    )
    for name in set(result["metrics"]) - {"ece"}:  # the bootstrap of an absolute error is biased upwards
        value, low, high = metrics.value_and_interval(result, name)
        assert low < value < high, name


@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        ([[0.5, 0.5]], [0, 1], "must be"),
        ([[0.5, np.nan], [1, 0]], [0, 1], "in row 0"),
        ([[0.5, 0.5], [0.9, 0.9]], [0, 1], "in row 1"),
        ([[0.5, 0.5], [1, 0]], [0, -1], r"0\.\.1, got \[-1\]"),
        (np.zeros((0, 2)), [], "N > 0"),
    ],
)
def test_bad_input_is_named(probs, labels, message):
    with pytest.raises(ValueError, match=message):
        metrics.evaluate(probs, labels, ["a", "b"], ["p"] * len(labels))
