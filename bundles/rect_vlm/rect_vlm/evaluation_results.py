"""Scores of findings, lesions and reports with their intervals. N scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from medbundles.intervals import entry
from medbundles.resampling import Floats

from rect_vlm import evaluation_floors as floors
from rect_vlm.evaluated import FindingResults, LesionResults, ReportResults
from rect_vlm.evaluation_cohort import Cohort
from rect_vlm.finding_scores import HALF, best_thresholds, decision_scores, finding_summary, ranking_scores
from rect_vlm.findings import FINDINGS, LESIONS
from rect_vlm.intervals import replicated
from rect_vlm.lesion_scores import counts, lesion_summary, lesion_table
from rect_vlm.records import Record, label_table
from rect_vlm.report_comparison import ReportComparison
from rect_vlm.report_labeler import ReportLabeler

ALL = "all lesions"
DECIDED = ("precision", "recall", "f1", "f1_weighted", "accuracy")


def finding_results(
    probabilities: Mapping[str, Floats],
    labels: Floats,
    held_out: tuple[Floats, Floats] | None,
    weights: Floats,
) -> FindingResults:
    """Scores of every arm; thresholds are those of highest F1 of the model on the held-out scans.

    Args:
        probabilities: (N, 18) by the name of the arm.
        labels: (N, 18), -1 = unknown.
        held_out: the model's probabilities and the labels (M, 18) of the scans that choose thresholds.
        weights: (R, N) of the replicates.
    """
    chosen = best_thresholds(*held_out) if held_out is not None else np.full(len(FINDINGS), np.nan)
    thresholds = np.where(np.isnan(chosen), HALF, chosen)
    scores = {}
    for name, said in probabilities.items():
        # The floor has one probability for all scans, which no threshold of the model's was chosen for.
        limits = np.zeros(len(FINDINGS)) if name == floors.PREVALENCE else thresholds
        values = finding_summary(said, labels, limits)
        scores[name] = replicated(values, finding_summary(said, labels, limits, weights))
    return FindingResults(
        labels=labels,
        thresholds=thresholds,
        tuned=(~np.isnan(chosen)).tolist(),
        probabilities=probabilities,
        scores=scores,
        per_finding=_finding_rows(probabilities[floors.MODEL], labels, thresholds, weights),
    )


def _finding_rows(said: Floats, labels: Floats, thresholds: Floats, weights: Floats) -> list[dict[str, Any]]:
    ranked, drawn = ranking_scores(said, labels), ranking_scores(said, labels, weights)
    half, tuned = (decision_scores(said > limit, labels) for limit in (HALF, thresholds))
    rows = []
    for k, finding in enumerate(FINDINGS):
        row: dict[str, Any] = {
            "finding": finding,
            "known": int((labels[:, k] >= 0).sum()),
            "positive": int((labels[:, k] > 0).sum()),
        }
        row |= {name: entry(ranked[name][k], drawn[name][:, k]) for name in ("auroc", "ap")}
        row |= {name: float(half[name][k]) for name in DECIDED}
        row["threshold"] = float(thresholds[k])
        row |= {f"{name}_tuned": float(tuned[name][k]) for name in DECIDED}
        rows.append(row)
    return rows


def lesion_results(scans: Sequence[Mapping[str, Mapping[str, float]]], weights: Floats) -> LesionResults:
    """Measures of N scans, by lesion and over all pairs of a scan and a lesion; weights (R, N)."""
    table = lesion_table(scans)
    values, drawn, numbers = lesion_summary(table), lesion_summary(table, weights), counts(table)
    rows = []
    for k, lesion in enumerate((*LESIONS, ALL)):
        row: dict[str, Any] = {"lesion": lesion}
        row |= {name: int(cells[k]) for name, cells in numbers.items()}
        row |= {name: entry(means[k], drawn[name][:, k]) for name, means in values.items()}
        rows.append(row)
    return LesionResults(table, rows)


def report_results(
    cohort: Cohort,
    said: Mapping[str, Sequence[str]],
    labeler: tuple[str, ReportLabeler],
    weights: Floats,
    seed: int,
) -> ReportResults | None:
    """Scores of the reports of every arm and of the floors; None where no scan has a reference.

    Args:
        cohort: its records hold the references, its training scans make the floors.
        said: reports (N,) by the name of the arm.
        labeler: its name, and the function.
        weights: (R, N) of the replicates.
        seed: of the random floor.
    """
    places = [i for i, record in enumerate(cohort.records) if record["report"]]
    if not places:
        return None
    references = [cohort.records[i]["report"] for i in places]
    labels = label_table(cohort.records).double().numpy()[places]
    compare = ReportComparison(references, labels, labeler[1], labeler[0], weights[:, places])
    reports: dict[str, Sequence[str]] = {name: [rows[i] for i in places] for name, rows in said.items()}
    reports |= floors.floor_reports(_texts(cohort.training), _texts(cohort.held_out), len(places), seed)
    scores = {name: compare.score(rows) for name, rows in reports.items()}
    scores[floors.REFERENCES] = compare.ceiling()
    f1 = compare.case_f1(reports[floors.MODEL])
    return ReportResults(places, references, reports, scores, f1, labeler[0])


def _texts(records: Sequence[Record]) -> list[str]:
    return [record["report"] for record in records if record["report"]]
