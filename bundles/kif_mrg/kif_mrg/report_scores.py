"""How good reports are as text and as clinical statements, with intervals over studies. N reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from medbundles.resampling import Floats, bootstrap_weights
from medbundles.text import require_text_extra
from medbundles.text.efficacy import clinical_efficacy
from medbundles.text.meteor import meteor, meteor_jar
from medbundles.text.nlg import report_metrics, rouge_l

from kif_mrg.evaluation_texts import Labeler, States
from kif_mrg.scored import Scored

Efficacy = dict[str, Any]  # `uncertain` and `empty` of clinical_efficacy


class ReportScores:
    """Scores sets of reports against the same references.

    Args:
        references: N texts in the form that is compared.
        studies: study of each; the bootstrap draws whole studies.
        labeler: finds the conditions in reports and references alike.
        efficacy: `uncertain` and `empty`, see clinical_efficacy.
        n_bootstrap, seed: of the intervals.

    Raises:
        ValueError: no references; an unknown option of clinical efficacy.
    """

    def __init__(
        self,
        references: Sequence[str],
        studies: Sequence[str],
        labeler: Labeler,
        efficacy: Efficacy,
        n_bootstrap: int = 1000,
        seed: int = 0,
    ) -> None:
        self.references, self.labeler, self.efficacy = list(references), labeler, dict(efficacy)
        self.weights = bootstrap_weights(studies, n_bootstrap, seed)
        self.true = labeler(self.references)
        # What reports equal to the references reach: with empty="zero" it may be less than 1.
        self.ceiling = clinical_efficacy(self.true, self.true, **self.efficacy)

    def score(self, reports: Sequence[str], states: States, java: bool = False) -> Scored:
        """Text metrics of the reports (N,) and clinical efficacy of their labels `states` (N, 14).

        BLEU-4, ROUGE-L and clinical efficacy have replicates. `meteor_lite` is always there; `meteor` only
        with `java` and where the Java program is installed, for it takes long.
        """
        values = report_metrics(reports, self.references, java=False)
        if java and meteor_jar():
            values |= meteor(reports, self.references)
        efficacy = clinical_efficacy(states, self.true, **self.efficacy)
        return Scored(values | efficacy, self._text_replicates(reports) | self._efficacy_replicates(states))

    def case_f1(self, states: States) -> Floats:
        """Example-based F1 of every report by itself (N,)."""
        pairs = zip(states, self.true, strict=True)
        f1 = [clinical_efficacy([a], [b], **self.efficacy)["ce_example_f1"] for a, b in pairs]
        return np.array(f1)

    def _text_replicates(self, reports: Sequence[str]) -> dict[str, Floats]:
        pairs = list(zip(reports, self.references, strict=True))
        rouge = np.array([rouge_l([report], [reference]) for report, reference in pairs])
        totals = self.weights.sum(axis=1)
        return {
            "bleu4": weighted_bleu4(bleu_statistics(reports, self.references), self.weights),
            "rouge_l": self.weights @ rouge / totals,
        }

    def _efficacy_replicates(self, states: States) -> dict[str, Floats]:
        places = np.arange(len(states))
        drawn = (np.repeat(places, row.astype(int)) for row in self.weights)
        rows = [clinical_efficacy(states[i], self.true[i], **self.efficacy) for i in drawn]
        return {name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else {})}


def bleu_statistics(reports: Sequence[str], references: Sequence[str]) -> Floats:
    """What BLEU-4 of any subset is made of (N, 10): per report four matches, four totals, both lengths."""
    require_text_extra()
    from sacrebleu import BLEU

    scorer = BLEU(tokenize="none", smooth_method="none", force=True)
    found = [scorer.corpus_score([a], [[b]]) for a, b in zip(reports, references, strict=True)]
    return np.array([[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in found], dtype=float)


def weighted_bleu4(statistics: Floats, weights: Floats) -> Floats:
    """Corpus BLEU-4 (R,) with report n counted `weights[r, n]` times."""
    from sacrebleu import BLEU

    drawn = (weights @ statistics).astype(int).tolist()
    found = (BLEU.compute_bleu(row[:4], row[4:8], row[8], row[9], smooth_method="none") for row in drawn)
    return np.array([one.score / 100 for one in found])
