"""Everything an evaluation found, before it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from kif_mrg.diagnosis_scores import Labels
from kif_mrg.evaluation_texts import States
from kif_mrg.predicting import Prediction
from kif_mrg.records import Record
from kif_mrg.report_scores import ReportScores
from kif_mrg.scored import Scored


@dataclass(frozen=True)
class Evaluated:
    """N cases, and by the name of an arm (the model, a floor) what it gave and how good that is.

    records, predictions: of the N cases, the predictions as the model made them. compare: references, their
    labels, bootstrap weights. reports, states: texts (N,) as they were compared, and their labels (N, 14).
    scores: of them. probs, diagnosis: of the diagnosis head (N, 4, C). labels: (N, C). positive: states that
    count as positive. views: images per case. facts: of the run. notes: what the reader must know.
    """

    records: Sequence[Record]
    predictions: Sequence[Prediction]
    compare: ReportScores
    reports: Mapping[str, Sequence[str]]
    states: Mapping[str, States]
    scores: Mapping[str, Scored]
    probs: Mapping[str, NDArray]
    labels: Labels
    diagnosis: Mapping[str, Scored]
    positive: Sequence[int]
    views: int
    facts: Mapping[str, Any]
    notes: Sequence[str]
