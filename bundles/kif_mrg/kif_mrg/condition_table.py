"""Condition by condition: what reports state of it, and what the diagnosis head makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from medbundles.text.labeler import CHEXPERT_CONDITIONS

from kif_mrg import evaluation_floors as floors
from kif_mrg.conditions import CONDITIONS
from kif_mrg.diagnosis_scores import common_states, condition_scores
from kif_mrg.evaluated import Evaluated
from kif_mrg.evaluation_texts import States

Row = dict[str, Any]


def condition_rows(found: Evaluated) -> list[Row]:
    """A row per condition; the reports' columns are empty for conditions that the labeler does not know.

    `references`, `reports`: texts in which it is positive. `precision`, `recall`, `f1`: of that in the
    model's reports; `f1_shuffled` with shuffled images. `labelled`, `positive`: records with a label, and
    with a positive one. `head_*`: of the diagnosis head; `head_constant` is the accuracy of the state that is
    commonest among these labels. nan where a number is not defined.
    """
    rows = _report_columns(found, found.states[floors.MODEL])
    shuffled = found.states.get(floors.SHUFFLED)
    if shuffled is not None:
        for row, other in zip(rows, _report_columns(found, shuffled), strict=True):
            row["f1_shuffled"] = other["f1"]
    labels = found.labels
    head = condition_scores(found.probs[floors.MODEL], labels, found.positive)
    empty: Row = dict.fromkeys(rows[0], np.nan)
    return [
        {
            "condition": name,
            **(rows[c] if c < len(rows) else empty),
            "labelled": int((labels[:, c] >= 0).sum()),
            "positive": int(np.isin(labels[:, c], found.positive).sum()),
            **{f"head_{score}": float(values[0, c]) for score, values in head.items()},
            "head_constant": _constant(labels[:, c]),
        }
        for c, name in enumerate(CONDITIONS[: labels.shape[1]])
    ]


def _report_columns(found: Evaluated, states: States) -> list[Row]:
    from sklearn.metrics import precision_recall_fscore_support

    true, said = (np.isin(table, found.positive) for table in (found.compare.true, states))
    rows = []
    for c in range(len(CHEXPERT_CONDITIONS)):
        precision, recall, f1, _ = precision_recall_fscore_support(
            true[:, c], said[:, c], average="binary", zero_division=np.nan
        )
        rows.append(
            {
                "references": int(true[:, c].sum()),
                "reports": int(said[:, c].sum()),
                "precision": float(precision),
                "recall": float(recall),
                "f1": float(f1),
            }
        )
    return rows


def _constant(labels: States) -> float:
    known = labels[labels >= 0]
    return float(common_states(known[:, None]).max()) if len(known) else float("nan")
