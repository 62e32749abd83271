"""Sets of reports compared with the same references, with intervals over patients. N reports."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from medbundles.resampling import Floats
from medbundles.text.nlg import rouge_l

from rect_vlm.crg import crg_score
from rect_vlm.finding_scores import decision_scores, mean_defined
from rect_vlm.intervals import Replicated
from rect_vlm.report_labeler import Labels, ReportLabeler, label_reports
from rect_vlm.report_scores import clean_text, label_scores, score_reports


class ReportComparison:
    """Scores reports by `score_reports`; some scores also in every bootstrap replicate.

    Args:
        references: N reports.
        labels: (N, 18) of 0 and 1, -1 = unknown: then what the labeler reads in the reference counts.
        labeler, name: finds the labels in a text; its name in the scores.
        weights: (R, N) of the replicates.
    """

    def __init__(
        self, references: Sequence[str], labels: Floats, labeler: ReportLabeler, name: str, weights: Floats
    ) -> None:
        self.references, self.name, self.weights = list(references), name, weights
        self.labeler = _remembering(labeler)
        read = self.labeler(self.references)
        self.true = np.where(np.asarray(labels) < 0, read, labels).astype(np.int64)

    def score(self, reports: Sequence[str]) -> Replicated:
        """Every score of N reports; ROUGE-L, micro and macro F1 and CRG have replicates."""
        values = score_reports(reports, self.references, self.true, self.labeler, self.name)
        replicates = {"rouge_l": self._rouge(reports), **self._agreement(self.labeler(list(reports)))}
        return {name: (value, replicates.get(name)) for name, value in values.items()}

    def ceiling(self) -> Replicated:
        """Label scores of the references themselves: below 1, as the labeler errs."""
        read = self.labeler(self.references)
        replicates = self._agreement(read)
        values = label_scores(read, self.true, self.name)
        return {name: (value, replicates.get(name)) for name, value in values.items()}

    def case_f1(self, reports: Sequence[str]) -> Floats:
        """F1 of the labels of every report by itself (N,), 1 where neither side has any."""
        said = self.labeler(list(reports))
        both = (said & self.true).sum(axis=1)
        either = said.sum(axis=1) + self.true.sum(axis=1)
        return np.where(either > 0, 2 * both / np.maximum(either, 1), 1.0)

    def _rouge(self, reports: Sequence[str]) -> Floats:
        pairs = zip(reports, self.references, strict=True)
        each = np.array([rouge_l([clean_text(a)], [clean_text(b)]) for a, b in pairs])
        return self.weights @ each / self.weights.sum(axis=1)

    def _agreement(self, said: Labels) -> Mapping[str, Floats]:
        hits = self.weights @ (said & self.true).sum(axis=1)
        stated = self.weights @ (said.sum(axis=1) + self.true.sum(axis=1))
        macro = mean_defined(decision_scores(said, self.true, self.weights)["f1"])
        drawn = (np.repeat(np.arange(len(said)), row.astype(int)) for row in self.weights)
        return {
            f"{self.name} micro f1": 2 * hits / np.maximum(stated, 1),
            f"{self.name} macro f1": macro,
            f"{self.name} CRG": np.array([_crg(said[rows], self.true[rows]) for rows in drawn]),
        }


def _crg(said: Labels, true: Labels) -> float:
    return crg_score(said, true) if 0 < true.sum() < true.size else math.nan


def _remembering(labeler: ReportLabeler) -> ReportLabeler:
    """The same labeler, which reads every text once: floors repeat theirs."""
    known: dict[str, np.ndarray] = {}

    def label(texts: Sequence[str]) -> Labels:
        unread = [text for text in dict.fromkeys(texts) if text not in known]
        if unread:
            known.update(zip(unread, labeler(unread), strict=True))
        return np.stack([known[text] for text in texts])

    return label


def make_labeler(
    checkpoint: str | None, tokenizer_folder: str | None, device: torch.device
) -> tuple[str, ReportLabeler]:
    """RadBERT from a local checkpoint, or the rule labeler, each with the name its scores carry.

    Raises:
        ValueError: a checkpoint without the folder of its tokenizer.
    """
    if checkpoint is None:
        return "rule labeler", label_reports
    if tokenizer_folder is None:
        raise ValueError("radbert needs radbert_tokenizer, the folder of its tokenizer, got None")
    from rect_vlm.radbert import RadBertLabeler

    return "RadBERT", RadBertLabeler(checkpoint, tokenizer_folder, device).label
