"""What an evaluation leaves behind: metrics.json, predictions.jsonl, conditions.csv, figures and one page."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from medbundles.intervals import CONFIDENCE, with_interval
from medbundles.report import HtmlReport
from medbundles.tables import write_csv, write_json
from numpy.typing import NDArray

from kif_mrg import evaluation_floors as floors
from kif_mrg.condition_table import condition_rows
from kif_mrg.evaluated import Evaluated
from kif_mrg.evaluation_gallery import add_gallery
from kif_mrg.evaluation_sections import EvaluationPage, differences, efficacy_readings
from kif_mrg.phantom import SIMULATED
from kif_mrg.report_lines import ReportLines
from kif_mrg.scored import Scored

logger = logging.getLogger(__name__)

Row = dict[str, Any]

SPLIT_NOTES = {
    "train": "The reporter was trained on these cases: the numbers say nothing about new ones.",
    "val": "Epoch, round and the constant report were chosen on these cases: the numbers flatter them.",
}
LOGGED = {"CE-F1": "ce_example_f1", "macro": "ce_macro_f1", "BLEU-4": "bleu4", "ROUGE-L": "rouge_l"}


def write_evaluation(folder: Path, found: Evaluated, gallery: int) -> Path:
    """Write everything into `folder`, each file in one step, and return the path of evaluation.html.

    Raises:
        OSError: a file cannot be written, or an image not be read; names it.
    """
    conditions, f1 = condition_rows(found), found.compare.case_f1(found.states[floors.MODEL])
    facts = {**found.facts, "date": datetime.now().astimezone().isoformat(timespec="seconds")}
    facts["bootstrap"] = {**facts["bootstrap"], "confidence": CONFIDENCE}
    notes = [*_notes(found), *found.notes]
    write_json(
        folder / "metrics.json",
        {
            **facts,
            "notes": notes,
            "reports": _entries(found.scores),
            "differences": dict(differences(found)),
            "ceiling": found.compare.ceiling,
            "efficacy_readings": efficacy_readings(found),
            "diagnosis": _entries(found.diagnosis),
            "conditions": conditions,
        },
    )
    ReportLines(folder / "predictions.jsonl").write(_predictions(found, f1))
    write_csv(folder / "conditions.csv", conditions)
    report = HtmlReport(f"KIF-ISD evaluation, split {facts['split']}", _sentence(facts))
    for note in notes:
        report.paragraph(note)
    page = EvaluationPage(report, folder, found)
    page.summary()
    page.reports()
    page.conditions(conditions)
    page.diagnosis()
    page.lengths()
    if gallery:
        add_gallery(report, found, f1, gallery)
    page.method()
    path = report.save(folder / "evaluation.html")
    _log(found, facts, path)
    return path


def _entries(scores: Any) -> Row:
    return {name: scored.entries() for name, scored in scores.items()}


def _notes(found: Evaluated) -> list[str]:
    notes = [SIMULATED] if found.facts["simulated"] else []
    return notes + [SPLIT_NOTES[split] for split in (found.facts["split"],) if split in SPLIT_NOTES]


def _sentence(facts: Row) -> str:
    date, time = facts["date"].split("T")
    return (
        f"{facts['annotation']}, split {facts['split']}: {facts['n_reports']} reports of "
        f"{facts['n_studies']} studies. Weights: {facts['checkpoint']['folder']} "
        f"(SHA-256 {facts['checkpoint']['sha256'][0][:12]}). Labeler: {facts['labeler']}. "
        f"References: {facts['reference_mode']}. Evaluated {date} {time}."
    )


def _predictions(found: Evaluated, f1: NDArray) -> Iterator[Row]:
    """A row per case; reports and references in the form in which they were compared."""
    for i, prediction in enumerate(found.predictions):
        yield {
            **prediction,
            "report": found.reports[floors.MODEL][i],
            "reference": found.compare.references[i],
            "report_labels": found.states[floors.MODEL][i].tolist(),
            "reference_labels": found.compare.true[i].tolist(),
            "ce_example_f1": float(f1[i]),
            **({"shuffled": found.reports[floors.SHUFFLED][i]} if floors.SHUFFLED in found.reports else {}),
        }


def _log(found: Evaluated, facts: Row, path: Path) -> None:
    def line(name: str, scored: Scored, metrics: dict[str, str]) -> None:
        entries = scored.entries()
        cells = "  ".join(f"{title} {with_interval(entries[key])}" for title, key in metrics.items())
        logger.info("%-30s  %s", name, cells)

    cases = facts["split"], facts["n_reports"], facts["n_studies"]
    logger.info("split %s, %d reports of %d studies", *cases)
    for name, scored in found.scores.items():
        line(name, scored, LOGGED)
    for name, scored in found.diagnosis.items():
        line(f"head: {name}", scored, {"F1": "f1_macro", "AUC": "auc_macro", "accuracy": "accuracy"})
    logger.info("%-30s  %s", "report", path)
