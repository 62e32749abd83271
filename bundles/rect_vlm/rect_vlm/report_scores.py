"""How good generated reports are: as text, and by the findings they state. n reports."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from medbundles.text.nlg import bleu, cider_d, rouge_l

from rect_vlm.crg import crg_score
from rect_vlm.findings import FINDINGS
from rect_vlm.report_labeler import ReportLabeler, label_reports

_LAYOUT = str.maketrans({"\n": " ", '"': None, "_": None})


def clean_text(report: str) -> str:
    """A report as its text metrics see it: one line, its full stops at the words, no quotes.

    The rules are those of the VLM3D challenge, except that its line ends glue two words together.
    """
    words = " ".join(report.replace("<|eot_id|>", "").translate(_LAYOUT).split())
    return words.replace(" . ", ".").replace(" .", ".")


def score_reports(
    hypotheses: Sequence[str],
    references: Sequence[str],
    labels: npt.ArrayLike | None = None,
    labeler: ReportLabeler = label_reports,
    labeler_name: str = "rule labeler",
) -> dict[str, float]:
    """Text metrics and label agreement of n reports with their references.

    BLEU, ROUGE-L and CIDEr-D are those of the COCO toolkit on whitespace tokens after `clean_text`. Label
    scores carry the name of the labeler, for those of two labelers must not be compared.

    Args:
        hypotheses, references: n reports each.
        labels: true labels (n, 18) of 0 and 1, -1 = unknown; without them, and where one is unknown, the
            labels of the reference count.
        labeler, labeler_name: finds the labels in a text; its name in the keys.

    Returns:
        bleu1 to bleu4, bleu_mean, rouge_l, cider_d (0 to 10); see label_scores for the others.

    Raises:
        ValueError: unequal lengths, nothing to compare, labels of another shape.
        ImportError: the extra `text` is not installed.
    """
    cleaned = [clean_text(text) for text in hypotheses], [clean_text(text) for text in references]
    orders = bleu(*cleaned)
    true = labeler(list(references))
    if labels is not None:
        known = np.asarray(labels)
        if known.shape != true.shape:
            raise ValueError(f"labels must be {true.shape}, got {known.shape}")
        true = np.where(known < 0, true, known).astype(np.int64)
    return {
        **orders,
        "bleu_mean": sum(orders.values()) / len(orders),
        "rouge_l": rouge_l(*cleaned),
        "cider_d": cider_d(*cleaned),
        **label_scores(labeler(list(hypotheses)), true, labeler_name),
    }


def label_scores(
    predicted: npt.ArrayLike, true: npt.ArrayLike, name: str = "rule labeler"
) -> dict[str, float]:
    """Precision, recall and F1 of labels (n, 18) of 0 and 1, and their CRG.

    Returns:
        "<name> <average> <precision|recall|f1>" with the averages micro, macro (mean over the findings that
        some true or predicted label has) and example (mean over reports); a report or ratio without
        positives scores 0, as published. "<name> F1 <finding>" is NaN for a finding nobody has.
        "<name> CRG" is NaN where it is not defined. "<name> share without positives" is the share of
        reports with no true label.

    Raises:
        ValueError: shapes that differ.
    """
    from sklearn.metrics import precision_recall_fscore_support

    said, wanted = np.asarray(predicted), np.asarray(true)
    if said.shape != wanted.shape:
        raise ValueError(f"predicted and true must have one shape, got {said.shape} and {wanted.shape}")
    used = np.atleast_1d(said.any(axis=0) | wanted.any(axis=0))
    scores: dict[str, float] = {}
    for average, sklearn_name in (("micro", "micro"), ("macro", "macro"), ("example", "samples")):
        columns = used if average == "macro" and used.any() else slice(None)
        values = precision_recall_fscore_support(
            wanted[:, columns], said[:, columns], average=sklearn_name, zero_division=0
        )
        for ratio, value in zip(("precision", "recall", "f1"), values, strict=False):
            scores[f"{name} {average} {ratio}"] = float(value)
    each = precision_recall_fscore_support(wanted, said, average=None, zero_division=0)[2]
    for finding, value, there in zip(FINDINGS, each, list(used), strict=True):
        scores[f"{name} F1 {finding}"] = float(value) if there else math.nan
    defined = 0 < wanted.sum() < wanted.size
    scores[f"{name} CRG"] = crg_score(said, wanted) if defined else math.nan
    scores[f"{name} share without positives"] = float((~wanted.any(axis=1)).mean())
    return scores
