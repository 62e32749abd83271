"""The sections of an evaluation's page: tables and figures over what was found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbundles.intervals import CONFIDENCE, Entry, with_interval
from medbundles.report import HtmlReport, save_figure

from rect_vlm import evaluation_figures as figures
from rect_vlm import evaluation_floors as floors
from rect_vlm.evaluated import Evaluated, FindingResults, LesionResults, ReportResults
from rect_vlm.evaluation_results import ALL
from rect_vlm.findings import FINDINGS, lesion_title
from rect_vlm.intervals import Replicated, differences, entries

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]

FINDING_MEANS = {
    "auroc_macro": "AUROC", "ap_macro": "AP", "f1_macro": "F1", "f1_weighted": "F1 weighted",
    "accuracy": "accuracy", "f1_macro_tuned": "F1, tuned", "f1_weighted_tuned": "F1 weighted, tuned",
    "accuracy_tuned": "accuracy, tuned",
}  # fmt: skip
PER_FINDING = {
    "finding": "finding", "positive": "positive", "known": "scans", "auroc": "AUROC", "ap": "AP",
    "precision": "precision", "recall": "recall", "f1": "F1", "threshold": "threshold",
    "precision_tuned": "precision, tuned", "recall_tuned": "recall, tuned", "f1_tuned": "F1, tuned",
}  # fmt: skip
PER_LESION = {
    "lesion": "lesion", "positives": "scans with it", "outlined": "of these outlined", "dice": "Dice",
    "global_dice": "Dice of all voxels", "iou": "IoU", "hd95_mm": "HD95 (mm)", "sensitivity": "sensitivity",
    "hit": "share with Dice ≥ 0.1",
}  # fmt: skip
FALSE = {
    "lesion": "lesion", "negatives": "scans without it", "false_ml": "outlined (ml)",
    "false_alarm": "share with any",
}  # fmt: skip
TEXT = {
    "bleu1": "BLEU-1", "bleu2": "BLEU-2", "bleu3": "BLEU-3", "bleu4": "BLEU-4", "bleu_mean": "BLEU mean",
    "rouge_l": "ROUGE-L", "cider_d": "CIDEr-D",
}  # fmt: skip

METHOD = """Findings are those of the label table, which CT-RATE took from reports by RadBERT: an unknown \
label counts nowhere, and a finding that no or every scan has is left out of the macro AUROC and AP. F1, \
precision and recall are of being present; weighted F1 is CT-CLIP's, the mean over the findings of the F1 of \
both classes weighted by how often each occurs, which is high where most findings are absent. Tuned is at \
the threshold of highest F1 on held-out training scans; the floor of training prevalence calls every finding \
present then.

Lesions are compared on the voxels of the file: the probability maps are interpolated from the model's grid \
and then cut at {mask_threshold}; what the grid does not reach counts as not outlined. Dice, IoU, HD95 and \
sensitivity are means over scans that have the lesion; HD95 only over those in which something was outlined. \
What is outlined in scans without the lesion is told apart.

Reports: BLEU, ROUGE-L and CIDEr-D are those of the COCO toolkit on whitespace tokens after the cleaning of \
the VLM3D challenge; they must not be compared with other tokenisations. Labels are read by the {labeler} in \
the reports and compared with the label table; numbers of the rule labeler and of RadBERT must not be \
compared. CRG (Hamamci et al. 2025) gives 1/3 to a report that states nothing.

Intervals are percentiles of {replicates} bootstrap replicates that draw whole patients, at {confidence:.0%} \
confidence: they hold the variation of patients, not that of trainings. Differences are paired."""


class EvaluationPage:
    """A report that grows section by section; its figures are also saved as PNG in `folder`."""

    def __init__(self, report: HtmlReport, folder: Path, found: Evaluated) -> None:
        self.report, self.folder, self.found = report, folder, found
        kind = "simulated cohort; " if found.facts["simulated"] else ""
        self.note = f"{kind}split {found.facts['split']}, {found.facts['n_scans']} scans"

    def findings(self, results: FindingResults) -> None:
        """The classification beside its floors, finding by finding, with ROC curves."""
        self.report.heading("Findings")
        self._arms(results.scores, FINDING_MEANS)
        self.report.paragraph(f"AUROC is defined for {results.auroc_defined} of {len(FINDINGS)} findings.")
        metrics = {"auroc_macro": "AUROC (macro)", "f1_macro_tuned": "F1 (macro, tuned)"}
        self._bars("findings", results.scores, metrics)
        self.report.table(_titled(results.per_finding, PER_FINDING), "Every finding, the model alone")
        if untuned := [name for name, tuned in zip(FINDINGS, results.tuned, strict=True) if not tuned]:
            self.report.paragraph(
                f"No threshold could be chosen, so that 0.5 holds, for: {', '.join(untuned)}."
            )
        areas = [row["auroc"]["value"] for row in results.per_finding]
        curves = {
            name: results.probabilities[name]
            for name in (floors.MODEL, floors.SHUFFLED)
            if name in results.probabilities
        }
        figure = figures.roc_curves(curves, results.labels, FINDINGS, areas, self.note)
        self._figure("roc", figure, "True over false positive rate, with the area of the model")

    def lesions(self, results: LesionResults) -> None:
        """Overlap where there is a lesion, false volume where there is none."""
        self.report.heading("Lesions")
        self.report.table(
            _titled(results.rows, PER_LESION), "Scans with the lesion, on the voxels of the file"
        )
        self.report.table(
            _titled(results.rows, FALSE), "Scans without the lesion: what is outlined all the same"
        )
        figure = figures.lesion_overlap(results.table["dice"], results.table["true_ml"], self.note)
        self._figure("lesions", figure, "Dice of every lesion with a true mask over its true volume")

    def reports(self, results: ReportResults) -> None:
        """Text metrics and label agreement beside the floors."""
        self.report.heading("Reports")
        name = results.labeler
        agreement = {
            f"{name} {average} {ratio}": f"{average} {ratio}"
            for average in ("micro", "macro", "example")
            for ratio in ("precision", "recall", "f1")
        } | {f"{name} CRG": "CRG"}
        told = {key: found for key, found in results.scores.items() if key != floors.REFERENCES}
        self._arms(told, TEXT)
        self._arms(results.scores, agreement, f"Findings in the reports, by the {name}")
        self._bars(
            "reports", told, {f"{name} micro f1": "micro F1", f"{name} CRG": "CRG", "rouge_l": "ROUGE-L"}
        )
        f1 = {
            arm: {key: value for key, (value, _) in scores.items()} for arm, scores in results.scores.items()
        }
        rows = [
            {"finding": finding} | {arm: scores[f"{name} F1 {finding}"] for arm, scores in f1.items()}
            for finding in FINDINGS
        ]
        self.report.table(rows, f"F1 of every finding in the reports, by the {name}")

    def method(self) -> None:
        """How the numbers came about, and what the rows are."""
        self.report.heading("How it was computed")
        arms = {
            name: floors.EXPLAINED[name]
            for results in (self.found.findings, self.found.reports)
            if results is not None
            for name in results.scores
        }
        self.report.table(
            [{"row": _unbroken(name), "what it is": text} for name, text in arms.items()], "The rows"
        )
        facts = self.found.facts
        replicates = facts["bootstrap"]["replicates"]
        text = METHOD.format(confidence=CONFIDENCE, replicates=replicates, **facts)
        self.report.paragraph(text)

    def _arms(self, scores: Mapping[str, Replicated], metrics: Mapping[str, str], caption: str = "") -> None:
        rows = [
            {"": _unbroken(name)} | {title: _cell(entries(found).get(key)) for key, title in metrics.items()}
            for name, found in scores.items()
        ]
        self.report.table(rows, caption or "The model, and what it must beat")
        own = scores[floors.MODEL]
        other = {name: differences(own, found) for name, found in scores.items() if name != floors.MODEL}
        rows = [
            {"model minus": _unbroken(name)}
            | {metrics[key]: _cell(found[key]) for key in metrics if key in found}
            for name, found in other.items()
        ]
        if any(len(row) > 1 for row in rows):
            self.report.table(rows, "Differences with paired intervals: one that holds 0 shows no advantage")

    def _bars(self, name: str, scores: Mapping[str, Replicated], metrics: Mapping[str, str]) -> None:
        arms = {arm: entries(found) for arm, found in scores.items()}
        title = f"{name.capitalize()}, model and floors, {CONFIDENCE:.0%} intervals"
        self._figure(
            name, figures.arm_bars(arms, metrics, title, self.note), f"{name} of the model and of each floor"
        )

    def _figure(self, name: str, figure: Figure, caption: str) -> None:
        self.report.figure(save_figure(figure, self.folder / f"{name}.png"), caption)


def _titled(rows: Any, columns: Mapping[str, str]) -> list[Row]:
    return [{title: _named(key, row[key]) for key, title in columns.items()} for row in rows]


def _named(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return _cell(value)
    return lesion_title(value) if key == "lesion" and value != ALL else value


def _cell(found: Entry | None) -> str:
    return "–" if found is None else _unbroken(with_interval(found))


def _unbroken(text: str) -> str:
    """Tables that are wider than the page scroll, so their cells need not break."""
    return text.replace(" ", "\u00a0")
