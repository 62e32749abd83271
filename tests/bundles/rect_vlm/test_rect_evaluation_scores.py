"""Scores of findings, lesions and reports: against scikit-learn and MONAI, and under bootstrap weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from medbundles.intervals import entry, with_interval
from medbundles.resampling import bootstrap_weights
from monai.metrics import compute_hausdorff_distance, compute_iou
from rect_vlm import lesion_scores
from rect_vlm.finding_scores import (
    best_thresholds,
    decision_scores,
    finding_summary,
    mean_defined,
    ranking_scores,
)
from rect_vlm.findings import FINDINGS, LESIONS
from rect_vlm.intervals import differences
from rect_vlm.lesion_scores import counts, lesion_summary, lesion_table, overlap_scores
from rect_vlm.report_comparison import ReportComparison, make_labeler
from rect_vlm.report_labeler import label_reports
from sklearn import metrics

REPORTS = [
    "FINDINGS:\nA nodule was observed. Emphysema was observed.\n\nIMPRESSION:\nNodule.",
    "FINDINGS:\nPleural effusion was not observed.\n\nIMPRESSION:\nNormal.",
    "FINDINGS:\nPleural effusion was observed on the left.\n\nIMPRESSION:\nEffusion.",
]


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with ties (40, 5) and labels; the last finding is present everywhere."""
    rng = np.random.default_rng(1)
    probs = rng.integers(1, 9, (40, 5)) / 9
    labels = (rng.random((40, 5)) < 0.3 + 0.4 * probs).astype(float)
    labels[::7, 1] = -1
    labels[:, 4] = 1
    return probs, labels


def test_ranking_is_that_of_scikit_learn_on_the_known_labels_and_under_weights(scored) -> None:
    probs, labels = scored
    weights = np.vstack([np.ones(40), bootstrap_weights(np.arange(40), 3)])
    plain, drawn = ranking_scores(probs, labels), ranking_scores(probs, labels, weights)
    for k in range(4):
        known = labels[:, k] >= 0
        y, p = labels[known, k], probs[known, k]
        assert plain["auroc"][k] == pytest.approx(metrics.roc_auc_score(y, p))
        assert plain["ap"][k] == pytest.approx(metrics.average_precision_score(y, p))
        for r, row in enumerate(weights[:, known]):
            assert drawn["auroc"][r, k] == pytest.approx(metrics.roc_auc_score(y, p, sample_weight=row))
            expected = metrics.average_precision_score(y, p, sample_weight=row)
            assert drawn["ap"][r, k] == pytest.approx(expected)
    assert np.isnan([plain["auroc"][4], plain["ap"][4]]).all()
    unknown = ranking_scores(probs, np.full_like(labels, -1), weights)["auroc"]
    assert unknown.shape == (4, 5)
    assert np.isnan(unknown).all()


def test_decisions_are_those_of_scikit_learn_and_weighted_f1_counts_both_classes(scored) -> None:
    probs, labels = scored
    found = decision_scores(probs > 0.5, labels)
    for k in range(5):
        known = labels[:, k] >= 0
        y, said = labels[known, k].astype(int), (probs[known, k] > 0.5).astype(int)
        values = metrics.precision_recall_fscore_support(y, said, average="binary", zero_division=0)
        assert [found[name][k] for name in ("precision", "recall", "f1")] == pytest.approx(values[:3])
        assert found["f1_weighted"][k] == pytest.approx(metrics.f1_score(y, said, average="weighted"))
        assert found["accuracy"][k] == pytest.approx(metrics.accuracy_score(y, said))
    silent = decision_scores(np.zeros((6, 2)), np.array([[0, 0]] * 5 + [[0, 1]]))
    np.testing.assert_array_equal(silent["f1"], [np.nan, 0])
    # CT-CLIP's figure looks good where nothing is ever found.
    np.testing.assert_allclose(silent["f1_weighted"], [1, 25 / 33])


def test_thresholds_have_the_highest_f1_of_all(scored) -> None:
    probs, labels = scored
    chosen = best_thresholds(probs, labels)
    reached = decision_scores(probs > chosen, labels)["f1"]
    for limit in np.arange(0.5, 9) / 9:
        assert (reached[:4] >= decision_scores(probs > limit, labels)["f1"][:4] - 1e-12).all()
    assert np.isnan(chosen[4])
    perfect = best_thresholds([[0.2], [0.4], [0.8]], [[0], [1], [1]])
    np.testing.assert_allclose(perfect, [0.3])


def test_macro_leaves_undefined_findings_out_and_replicates_are_redrawn_cohorts(scored) -> None:
    probs, labels = scored
    weights = bootstrap_weights(np.arange(40), 2)
    summary = finding_summary(probs, labels, np.full(5, 0.3), weights)
    plain = finding_summary(probs, labels, np.full(5, 0.3))
    assert plain["auroc_macro"] == pytest.approx(np.mean(ranking_scores(probs, labels)["auroc"][:4]))
    assert plain["f1_macro"] != plain["f1_macro_tuned"]
    for r, row in enumerate(weights.astype(int)):
        redrawn = finding_summary(np.repeat(probs, row, 0), np.repeat(labels, row, 0), np.full(5, 0.3))
        for name, value in redrawn.items():
            assert summary[name][r] == pytest.approx(value)
    assert np.isnan(mean_defined(np.full((2, 3), np.nan))).all()
    with pytest.raises(ValueError, match=r"got \(40, 5\), \(40, 4\)"):
        ranking_scores(probs, labels[:, :4])


def test_overlap_is_that_of_monai_on_the_whole_volume() -> None:
    rng = np.random.default_rng(0)
    found, true = np.zeros((2, 20, 16, 12), bool)
    found[3:11, 4:9, 2:7], true[5:14, 3:9, 4:8] = True, True
    found &= rng.random(found.shape) < 0.9
    spacing = (0.7, 0.9, 2.5)
    scores = overlap_scores(found, true, spacing)
    pair = [torch.from_numpy(mask)[None, None] for mask in (found, true)]
    distance = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing)
    assert scores["hd95_mm"] == pytest.approx(float(distance))
    assert scores["iou"] == pytest.approx(float(compute_iou(*pair)))
    assert scores["dice"] == pytest.approx(metrics.f1_score(true.ravel(), found.ravel()))
    assert scores["sensitivity"] == pytest.approx(metrics.recall_score(true.ravel(), found.ravel()))
    assert scores["true_ml"] == pytest.approx(9 * 6 * 4 * 0.7 * 0.9 * 2.5 / 1000)


def test_false_volume_is_apart_and_an_empty_pair_adds_nothing_to_dice() -> None:
    empty, full = np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), bool)
    missed, hit = overlap_scores(empty, full, (10.0,) * 3), overlap_scores(full, full, (10.0,) * 3)
    alarm, silent = overlap_scores(full, empty, (10.0,) * 3), overlap_scores(empty, empty, (10.0,) * 3)
    assert (missed["dice"], missed["sensitivity"], missed["hit"]) == (0, 0, 0)
    assert np.isnan([missed["hd95_mm"], missed["false_ml"]]).all()
    assert (hit["dice"], hit["hd95_mm"]) == (1, 0)
    assert [alarm["false_ml"], silent["false_ml"]] == [64, 0]
    assert np.isnan([alarm[name] for name in lesion_scores.ON_POSITIVES]).all()
    first, last = LESIONS[0], LESIONS[-1]
    table = lesion_table([{first: missed, last: alarm}, {first: hit, last: silent}, {}])
    summary, numbers = lesion_summary(table), counts(table)
    np.testing.assert_allclose(summary["dice"], [0.5, *[np.nan] * 4, 0.5])
    np.testing.assert_allclose(summary["false_ml"], [*[np.nan] * 4, 32, 32])
    assert summary["false_alarm"][-1] == 0.5
    np.testing.assert_allclose(summary["global_dice"][0], 2 * 64 / (2 * 64 + 64))
    assert [cells[-1] for cells in numbers.values()] == [2, 1, 2]
    drawn = lesion_summary(table, np.array([[2.0, 0, 0], [0, 1, 1]]))
    np.testing.assert_allclose(drawn["dice"][:, 0], [0, 1])
    np.testing.assert_allclose(drawn["false_ml"][:, -1], [64, 0])


def test_report_replicates_with_every_report_once_are_the_values() -> None:
    labels = np.full((3, len(FINDINGS)), -1.0)
    calls: list[str] = []

    def labeler(texts):
        calls.extend(texts)
        return label_reports(texts)

    compare = ReportComparison(REPORTS, labels, labeler, "rules", np.ones((1, 3)))
    said = [REPORTS[0], REPORTS[2], REPORTS[2]]
    scores = compare.score(said)
    replicated = {name for name, (_, drawn) in scores.items() if drawn is not None}
    assert replicated == {"rouge_l", "rules micro f1", "rules macro f1", "rules CRG"}
    for name in replicated:
        value, drawn = scores[name]
        assert drawn == pytest.approx([value])
    assert calls == REPORTS  # each text once
    assert compare.ceiling()["rules micro f1"][0] == 1
    np.testing.assert_allclose(compare.case_f1(said), [1, 0, 1])
    given = np.zeros_like(labels)
    given[:, FINDINGS.index("Emphysema")] = 1
    other = ReportComparison(REPORTS, given, labeler, "rules", np.ones((1, 3)))
    assert other.ceiling()["rules micro f1"][0] < 1
    with pytest.raises(ValueError, match="radbert_tokenizer"):
        make_labeler("radbert.pth", None, torch.device("cpu"))


def test_differences_are_paired() -> None:
    own = {"a": (0.7, np.array([0.6, 0.8])), "b": (1.0, None)}
    other = {"a": (0.5, np.array([0.4, 0.6])), "b": (0.0, None)}
    found = differences(own, other)
    assert list(found) == ["a"]
    assert found["a"] == pytest.approx({"value": 0.2, "low": 0.2, "high": 0.2})
    assert with_interval(found["a"]) == "0.200 [0.200, 0.200]"
    assert with_interval(entry(float("nan"))) == "–"
