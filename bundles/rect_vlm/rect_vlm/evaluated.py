"""Everything an evaluation found, before it is written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medbundles.resampling import Floats

from rect_vlm.evaluation_scans import Reading
from rect_vlm.intervals import Replicated
from rect_vlm.records import Record


@dataclass(frozen=True)
class FindingResults:
    """labels (N, 18) with -1 unknown; probabilities (N, 18) and scores by the name of the arm.

    thresholds: (18,) chosen on training scans; tuned: where that was possible, elsewhere they are 0.5.
    """

    labels: Floats
    thresholds: Floats
    tuned: Sequence[bool]
    probabilities: Mapping[str, Floats]
    scores: Mapping[str, Replicated]
    per_finding: Sequence[Mapping[str, Any]]

    @property
    def auroc_defined(self) -> int:
        """Findings whose known labels hold both classes."""
        return sum(not math.isnan(row["auroc"]["value"]) for row in self.per_finding)


@dataclass(frozen=True)
class LesionResults:
    """table: measures (N, 5) of `lesion_table`; rows: of each lesion and of all, values with intervals."""

    table: Mapping[str, Floats]
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class ReportResults:
    """Of the scans with a report, whose places in `records` are `places`.

    reports, scores: by the name of the arm. f1: of the labels of the model's reports. labeler: its name.
    """

    places: Sequence[int]
    references: Sequence[str]
    reports: Mapping[str, Sequence[str]]
    scores: Mapping[str, Replicated]
    f1: Floats
    labeler: str


@dataclass(frozen=True)
class Evaluated:
    """N scans; a task that nothing is known about is None. facts: of the run; notes: for the reader."""

    records: Sequence[Record]
    readings: Sequence[Reading]
    findings: FindingResults | None
    lesions: LesionResults | None
    reports: ReportResults | None
    facts: Mapping[str, Any]
    notes: Sequence[str] = field(default_factory=list)
