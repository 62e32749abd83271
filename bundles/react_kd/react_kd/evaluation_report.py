"""What an evaluation leaves behind: metrics.json, predictions.csv, figures and one HTML page over them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from medbundles.report import HtmlReport
from medbundles.tables import write_csv, write_json
from numpy.typing import NDArray

from react_kd.cases import PET_KEYS
from react_kd.evaluation_conditions import EvaluationSplit
from react_kd.evaluation_sections import EvaluationPage, Row, interval, title_of
from react_kd.metrics import N_BINS
from react_kd.tables import prediction_rows

logger = logging.getLogger(__name__)

Logits = Mapping[tuple[str, str], NDArray]  # (network, condition) -> (N, K), nan where a case lacks a stream

BEST_EPOCH = 0  # column `epoch` of predictions.csv: a checkpoint does not say at which epoch it was best
SPLIT_NOTES = {
    "training": "The networks were trained on these cases: the numbers say nothing about new ones.",
    "validation": "The best epoch was chosen on these cases: the numbers flatter the networks.",
    "all": "Training cases are among them: the numbers say nothing about new ones.",
}
NO_TEACHER = "There is no teacher.pt beside the student, so no upper reference is given."
METHOD = (
    "AUC is one class against the rest; macro is the mean over the classes, micro pools them; without a "
    "case of some class it is not defined (–). Precision, recall and F1 are macro means. Brier is the "
    "squared distance of the probabilities from the one-hot grade, ECE the calibration error of the "
    f"predicted class in {N_BINS} bins. Intervals are percentiles of {{replicates}} bootstrap replicates "
    "that draw whole patients, at {confidence:.0%} confidence: they hold the variation of cases, not that of "
    "trainings. The same number of photons means different noise in different noise models. All intervals "
    "and curves of every condition are in metrics.json, every single prediction is in predictions.csv."
)


def write_evaluation(
    folder: Path,
    cohort: EvaluationSplit,
    checkpoints: Mapping[str, Path],
    results: Sequence[Row],
    logits: Logits,
) -> Path:
    """Write everything into `folder`, each file in one step, and return the path of evaluation.html.

    `results` are the rows of `evaluation.measure`, the student with CT alone first.

    Raises:
        OSError: a file cannot be written; names it.
    """
    facts = _facts(cohort, checkpoints, results)
    write_json(folder / "metrics.json", facts | {"results": results})
    write_csv(folder / "predictions.csv", list(_predictions(cohort, results, logits)))
    report = HtmlReport(f"REACT-KD evaluation, split {cohort.split}", _sentence(facts))
    for note in (SPLIT_NOTES.get(cohort.split, ""), "" if "teacher" in checkpoints else NO_TEACHER):
        report.paragraph(note)
    page = EvaluationPage(report, folder, results, f"{cohort.cohort}; split {cohort.split}")
    page.summary()
    probs = torch.from_numpy(logits["student", "ct"]).softmax(dim=1).numpy()
    page.student(probs, [case["label"] for case in cohort.graded])
    page.modalities()
    page.doses()
    page.everything()
    report.heading("How it was computed")
    report.paragraph(METHOD.format(**results[0]["bootstrap"]))
    path = report.save(folder / "evaluation.html")
    logger.info(_sentence(facts))
    for row in results:
        if row["photons"] is None:
            scores = (
                f"macro AUC {interval(row, 'auc_macro')}  accuracy {row['metrics']['accuracy']['value']:.3f}"
            )
            logger.info("%-19s n %d  %s", title_of(row), row["n_cases"], scores)
    logger.info("report        %s", path)
    return path


def _facts(cohort: EvaluationSplit, checkpoints: Mapping[str, Path], results: Sequence[Row]) -> Row:
    return {
        "cohort": cohort.cohort,
        "split": cohort.split,
        "fold": cohort.fold,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        **{key: results[0][key] for key in ("n_cases", "n_patients", "classes", "support")},
        "n_with_pet": sum(any(case.get(key) for key in PET_KEYS) for case in cohort.graded),
        "n_ungraded_left_out": cohort.ungraded,
        "checkpoints": {
            name: {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            for name, path in checkpoints.items()
        },
    }


def _sentence(facts: Row) -> str:
    grades = ", ".join(f"{n} {name}" for name, n in facts["support"].items())
    weights = "; ".join(
        f"{name} {entry['path']} (SHA-256 {entry['sha256'][:12]})"
        for name, entry in facts["checkpoints"].items()
    )
    date, time = facts["date"].split("T")
    return (
        f"Cohort: {facts['cohort']}. Split {facts['split']}: {facts['n_cases']} graded scans of "
        f"{facts['n_patients']} patients ({grades}), {facts['n_with_pet']} with PET; "
        f"{facts['n_ungraded_left_out']} ungraded left out. Weights: {weights}. Evaluated {date} {time}."
    )


def _predictions(cohort: EvaluationSplit, results: Sequence[Row], logits: Logits) -> Iterator[Row]:
    """A row per network, condition and case; CT alone is there once, for all cases."""
    measured = {(row["network"], row["condition"]): row["noise_model"] for row in results}
    for (network, condition), noise_model in measured.items():
        known = np.flatnonzero(np.isfinite(logits[network, condition]).all(axis=1))
        graded = [cohort.graded[i] for i in known]
        rows = prediction_rows(
            logits[network, condition][known],
            [case["label"] for case in graded],
            fold=cohort.fold,
            epoch=BEST_EPOCH,
            patient_ids=[case["patient_id"] for case in graded],
            scan_ids=[case["scan_id"] for case in graded],
            condition=condition,
        )
        yield from (row | {"network": network, "noise_model": noise_model} for row in rows)
