"""What an evaluation leaves behind: metrics.json, predictions.csv, findings.csv, lesions.csv and one page."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from medbundles.intervals import CONFIDENCE, with_interval
from medbundles.report import HtmlReport
from medbundles.tables import write_csv, write_json

from rect_vlm import evaluation_floors as floors
from rect_vlm.data import CtDataset
from rect_vlm.evaluated import Evaluated
from rect_vlm.evaluation_gallery import add_gallery
from rect_vlm.evaluation_scans import ScanReader
from rect_vlm.evaluation_sections import EvaluationPage
from rect_vlm.findings import FINDINGS, LESIONS
from rect_vlm.intervals import Replicated, differences, entries
from rect_vlm.records import UNKNOWN

logger = logging.getLogger(__name__)

Row = dict[str, Any]
LESION_COLUMNS = ("true_ml", "found_ml", "dice", "hd95_mm")


def write_evaluation(
    folder: Path, found: Evaluated, reader: ScanReader, dataset: CtDataset, gallery: int
) -> Path:
    """Write everything into `folder`, each file in one step, and return the path of evaluation.html.

    Args:
        folder: is there.
        found: what to write.
        reader, dataset: outline the lesions of the scans on the page.
        gallery: scans on the page.

    Raises:
        OSError: a file cannot be written, or a volume not be read.
    """
    facts = {**found.facts, "date": datetime.now().astimezone().isoformat(timespec="seconds")}
    write_json(folder / "metrics.json", metrics(found, facts))
    write_csv(folder / "predictions.csv", prediction_rows(found))
    if found.findings is not None:
        write_csv(folder / "findings.csv", [_flat(row) for row in found.findings.per_finding])
    if found.lesions is not None:
        write_csv(folder / "lesions.csv", [_flat(row) for row in found.lesions.rows])
    report = HtmlReport(f"ReCT-VLM evaluation, split {facts['split']}", _sentence(facts))
    for note in (*found.notes, *_missing(found)):
        report.paragraph(note)
    page = EvaluationPage(report, folder, found)
    if found.findings is not None:
        page.findings(found.findings)
    if found.lesions is not None:
        page.lesions(found.lesions)
    if found.reports is not None:
        page.reports(found.reports)
    if gallery > 0:
        add_gallery(report, found, reader, dataset, gallery)
    page.method()
    path = report.save(folder / "evaluation.html")
    _log(found, path)
    return path


def metrics(found: Evaluated, facts: Mapping[str, Any]) -> Row:
    """The content of metrics.json; every score as value, low and high."""
    content: Row = {
        **facts,
        "bootstrap": {**facts["bootstrap"], "confidence": CONFIDENCE},
        "notes": [*found.notes, *_missing(found)],
    }
    if (findings := found.findings) is not None:
        content["findings"] = {
            **_arms(findings.scores),
            "auroc_defined": findings.auroc_defined,
            "per_finding": findings.per_finding,
        }
    if found.lesions is not None:
        content["lesions"] = {row["lesion"]: row for row in found.lesions.rows}
    if found.reports is not None:
        content["reports"] = {**_arms(found.reports.scores), "n_reports": len(found.reports.places)}
    return content


def prediction_rows(found: Evaluated) -> list[Row]:
    """A row per scan: probabilities, labels, lesions, and the reports where there are any."""
    reports = found.reports
    said: dict[int, Row] = {}
    if reports is not None and floors.SHUFFLED in reports.reports:
        texts = reports.reports[floors.SHUFFLED]
        said = {place: {"report_shuffled": text} for place, text in zip(reports.places, texts, strict=True)}
    rows = []
    for i, (record, reading) in enumerate(zip(found.records, found.readings, strict=True)):
        row: Row = {key: record[key] for key in ("id", "scan", "patient")}  # type: ignore[literal-required]
        labels = record["labels"] or [UNKNOWN] * len(FINDINGS)
        for finding, value, label in zip(FINDINGS, reading.probabilities.tolist(), labels, strict=True):
            row |= {f"p {finding}": value, f"label {finding}": label}
        for lesion in LESIONS:
            scores = reading.lesions.get(lesion, {})
            row |= {f"{lesion} {key}": scores.get(key) for key in LESION_COLUMNS}
        row |= {
            "evidence": "\n".join(reading.evidence),
            "report": reading.report,
            "reference": record["report"],
        }
        rows.append({**row, "report_shuffled": None, **said.get(i, {})})
    return rows


def _arms(scores: Mapping[str, Replicated]) -> Row:
    own = scores[floors.MODEL]
    return {
        "arms": {name: entries(arm) for name, arm in scores.items()},
        "differences": {name: differences(own, arm) for name, arm in scores.items() if name != floors.MODEL},
    }


def _missing(found: Evaluated) -> list[str]:
    known: Sequence[tuple[str, Any]] = (
        ("There are no labels, so the findings were not evaluated.", found.findings),
        ("There are no true masks, so the lesions were not evaluated.", found.lesions),
        ("There are no reports to compare, so none were evaluated.", found.reports),
    )
    return [text for text, results in known if results is None]


def _flat(row: Mapping[str, Any]) -> Row:
    flat: Row = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat |= {key if part == "value" else f"{key}_{part}": number for part, number in value.items()}
        else:
            flat[key] = value
    return flat


def _sentence(facts: Mapping[str, Any]) -> str:
    date, time = facts["date"].split("T")
    return (
        f"{facts['dataset_dir']}, split {facts['split']}: {facts['n_scans']} scans of {facts['n_patients']} "
        f"patients. Model: {facts['checkpoint']['folder']}. Evaluated {date} {time}."
    )


def _log(found: Evaluated, path: Path) -> None:
    shown: dict[str, tuple[Mapping[str, Replicated], dict[str, str]]] = {}
    if found.findings is not None:
        shown["findings"] = found.findings.scores, {"AUROC": "auroc_macro", "F1 tuned": "f1_macro_tuned"}
    if found.reports is not None:
        name = found.reports.labeler
        shown["reports"] = (
            found.reports.scores,
            {"F1": f"{name} micro f1", "CRG": f"{name} CRG", "ROUGE-L": "rouge_l"},
        )
    for task, (scores, keys) in shown.items():
        for arm, values in scores.items():
            told = entries(values)
            cells = "  ".join(
                f"{title} {with_interval(told[key])}" for title, key in keys.items() if key in told
            )
            logger.info("%-9s %-26s %s", task, arm, cells)
    for row in found.lesions.rows if found.lesions is not None else ():
        logger.info("lesions   %-26s Dice %s", row["lesion"], with_interval(row["dice"]))
    logger.info("%-36s %s", "report", path)
