"""One validation: how the reports and the diagnoses of a reporter are measured."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kif_mrg.conditions import IGNORE
from kif_mrg.prior import ClassPrior
from kif_mrg.report_scores import ReportScores
from kif_mrg.workflow import ReportEvaluator
from kif_tiny_reporter import CONDITIONS, make_tokenizer
from medbundles.precision import Precision
from medbundles.text.labeler import label_reports
from torch import Tensor, nn

CPU = Precision("cpu", "off")


class Speaker(nn.Module):
    """Says and diagnoses what it was given, batch by batch."""

    def __init__(self, batches: list[tuple[list[str], Tensor]]) -> None:
        super().__init__()
        self.tokenizer, self.batches, self.asked = make_tokenizer(), batches, 0

    def generate(self, image: Tensor, memory: Tensor | None, **_: Any) -> dict[str, Any]:
        reports, class_logits = self.batches[self.asked % len(self.batches)]
        self.asked += 1
        return {"reports": reports, "class_logits": class_logits}


def batch(references: list[str], labels: Tensor) -> dict[str, Any]:
    return {"image": torch.zeros(len(references), 3, 8, 8), "report": references, "labels": labels}


def certain(states: Tensor) -> Tensor:
    """Logits (B, 4, C) whose largest is that of `states` (B, C)."""
    return nn.functional.one_hot(states, 4).permute(0, 2, 1) * 5.0


def test_metrics_of_hand_made_reports() -> None:
    labels = torch.zeros(3, CONDITIONS, dtype=torch.int64)
    labels[0, :6] = IGNORE
    said = labels.clamp_min(0)
    said[1, :3] = 1  # 3 wrong of 3 * 18 - 6 known ones
    speaker = Speaker(
        [
            # One of two findings; then a sound chest, in which nothing but the typing differs.
            (["cardiomegaly .", "The lungs are well - expanded ."], certain(said[:2])),
            (["no pneumothorax . pacemaker in place ."], certain(said[2:])),
        ]
    )
    loader = [
        batch(["cardiomegaly . left pleural effusion .", "the lungs are well-expanded ."], labels[:2]),
        batch(["left pleural effusion ."], labels[2:]),
    ]
    evaluator = ReportEvaluator(speaker, CPU, loader)  # type: ignore[arg-type]
    for _ in range(2):  # nothing is left over from the run before
        evaluator.run()
        metrics = evaluator.state.metrics
        assert metrics["val_ce_f1"] == pytest.approx((2 / 3 + 1 + 0) / 3)
        assert metrics["val_state_acc"] == pytest.approx(45 / 48)
        assert 0 <= metrics["val_bleu4"] < 1


def test_spelling_alone_costs_nothing() -> None:
    reference = "well-expanded lungs . no focal consolidation ."
    said = "Well - expanded lungs . no focal consolidation ."
    speaker = Speaker([([said], torch.zeros(1, 4, 2))])
    unlabelled = torch.full((1, 2), IGNORE)
    evaluator = ReportEvaluator(speaker, CPU, [batch([reference], unlabelled)])  # type: ignore[arg-type]
    evaluator.run()
    assert evaluator.state.metrics["val_bleu4"] == pytest.approx(1)
    assert evaluator.state.metrics["val_ce_f1"] == 1
    assert torch.tensor(evaluator.state.metrics["val_state_acc"]).isnan()
    # The form that evaluation compares: in the tokenizer's own, BLEU would count a word for each part.
    (row,) = evaluator.rows
    assert row["report"] == row["reference"] == [reference] == [speaker.tokenizer.comparable(said)]


def test_validation_measures_what_evaluation_measures() -> None:
    references = [
        "well-expanded lungs . no focal consolidation .",
        "no air-space disease . heart is enlarged .",
    ]
    reports = ["well - expanded lungs . heart is normal .", "no air - space opacity . heart is enlarged ."]
    speaker = Speaker([(reports, torch.zeros(2, 4, 14))])
    evaluator = ReportEvaluator(speaker, CPU, [batch(references, torch.zeros(2, 14).long())])  # type: ignore[arg-type]
    evaluator.run()
    comparable = speaker.tokenizer.comparable
    compare = ReportScores([comparable(text) for text in references], ["a", "b"], label_reports, {}, 0)
    said = [comparable(text) for text in reports]
    scores = compare.score(said, label_reports(said)).values
    found = evaluator.state.metrics
    assert found["val_bleu4"] == pytest.approx(scores["bleu4"])
    assert found["val_ce_f1"] == pytest.approx(scores["ce_example_f1"])
    assert 0 < found["val_bleu4"] < 1


def test_prior_is_estimated_from_the_whole_validation_set() -> None:
    logits = torch.randn(3, 4, CONDITIONS)
    labels = torch.randint(0, 4, (3, CONDITIONS))
    labels[:, 0] = 2  # no positive: keeps its prior
    prior, expected = (ClassPrior(CONDITIONS, torch.full((CONDITIONS,), 0.5)) for _ in "ab")
    speaker = Speaker([(["a ."] * 2, logits[:2]), (["a ."], logits[2:])])
    loader = [batch(["a ."] * 2, labels[:2]), batch(["a ."], labels[2:])]
    ReportEvaluator(speaker, CPU, loader, prior).run()  # type: ignore[arg-type]
    expected.update(logits, labels)
    torch.testing.assert_close(prior.prior, expected.prior)
    assert prior.prior[0] == 0.5
