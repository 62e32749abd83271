"""Scores of generated reports: equal to their parts, named by their labeler, undefined where they are."""

import math

import numpy as np
import pytest
from medbundles.text.nlg import bleu, cider_d, rouge_l
from rect_vlm.crg import crg_score
from rect_vlm.findings import FINDINGS
from rect_vlm.report_labeler import label_reports
from rect_vlm.report_scores import clean_text, label_scores, score_reports

REFERENCES = [
    "FINDINGS:\nCardiomegaly. A nodule is seen in the left lung.\n\nIMPRESSION:\nCardiomegaly.",
    "FINDINGS:\nPleural effusion was not detected. Emphysema is present.\n\nIMPRESSION:\nEmphysema.",
    "FINDINGS:\nHeart size is normal. No nodule was detected.\n\nIMPRESSION:\nNormal chest.",
]
HYPOTHESES = [
    "FINDINGS:\nCardiomegaly. Emphysema is present.\n\nIMPRESSION:\nCardiomegaly.",
    "FINDINGS:\nPleural effusion was not detected. Emphysema is present.\n\nIMPRESSION:\nEmphysema.",
    "FINDINGS:\nHeart size is normal. A nodule was detected.\n\nIMPRESSION:\nNodule.",
]


def test_cleaning_joins_lines_and_sets_full_stops_to_their_words() -> None:
    assert clean_text('FINDINGS:\nNo "nodule" .  Clear\n\nIMPRESSION:\nNormal_ .<|eot_id|>') == (
        "FINDINGS: No nodule.Clear IMPRESSION: Normal."
    )


def test_text_metrics_are_those_of_the_cleaned_texts() -> None:
    scores = score_reports(HYPOTHESES, REFERENCES)
    cleaned = [clean_text(text) for text in HYPOTHESES], [clean_text(text) for text in REFERENCES]
    orders = bleu(*cleaned)
    assert {name: scores[name] for name in orders} == orders
    assert scores["bleu_mean"] == pytest.approx(sum(orders.values()) / 4)
    assert scores["rouge_l"] == rouge_l(*cleaned)
    assert scores["cider_d"] == cider_d(*cleaned)


def test_label_scores_by_hand() -> None:
    # True: heart and nodule; emphysema; nothing. Said: heart and emphysema; emphysema; nodule.
    scores = score_reports(HYPOTHESES, REFERENCES)
    assert scores["rule labeler micro f1"] == pytest.approx(2 * 2 / 7)
    assert scores["rule labeler macro f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert scores["rule labeler example f1"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert scores["rule labeler micro precision"] == pytest.approx(2 / 4)
    assert scores["rule labeler micro recall"] == pytest.approx(2 / 3)
    assert scores["rule labeler F1 Cardiomegaly"] == 1
    assert math.isnan(scores["rule labeler F1 Hiatal hernia"])
    assert scores["rule labeler share without positives"] == pytest.approx(1 / 3)
    assert scores["rule labeler CRG"] == crg_score(label_reports(HYPOTHESES), label_reports(REFERENCES))


def test_equal_reports_score_1() -> None:
    scores = score_reports(REFERENCES, REFERENCES)
    for name in ("bleu4", "rouge_l", "rule labeler micro f1", "rule labeler macro f1", "rule labeler CRG"):
        assert scores[name] == pytest.approx(1)


def test_known_labels_go_before_those_of_the_references() -> None:
    table = np.zeros((3, len(FINDINGS)))
    table[:, FINDINGS.index("Hiatal hernia")] = 1
    known = score_reports(HYPOTHESES, REFERENCES, labels=table)
    assert known["rule labeler micro f1"] == 0
    unknown = score_reports(HYPOTHESES, REFERENCES, labels=np.full_like(table, -1))
    assert unknown == pytest.approx(score_reports(HYPOTHESES, REFERENCES), nan_ok=True)
    with pytest.raises(ValueError, match=r"labels must be \(3, 18\)"):
        score_reports(HYPOTHESES, REFERENCES, labels=table[:2])


def test_scores_carry_the_name_of_their_labeler() -> None:
    always = np.ones((3, len(FINDINGS)), dtype=np.int64)
    scores = score_reports(HYPOTHESES, REFERENCES, labeler=lambda texts: always, labeler_name="RadBERT")
    assert scores["RadBERT micro f1"] == 1
    assert math.isnan(scores["RadBERT CRG"])
    assert not any(name.startswith("rule") for name in scores)


def test_labels_of_nothing_at_all() -> None:
    none = np.zeros((2, len(FINDINGS)), dtype=int)
    scores = label_scores(none, none)
    assert scores["rule labeler micro f1"] == 0
    assert scores["rule labeler macro f1"] == 0
    assert math.isnan(scores["rule labeler CRG"])
    with pytest.raises(ValueError, match="one shape"):
        label_scores(none, none[:1])
