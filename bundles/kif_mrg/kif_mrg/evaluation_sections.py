"""The sections of an evaluation's page: tables and figures over what was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from medbundles.intervals import CONFIDENCE, Entry, with_interval
from medbundles.report import HtmlReport, save_figure
from medbundles.text.efficacy import clinical_efficacy

from kif_mrg import evaluation_figures as figures
from kif_mrg import evaluation_floors as floors
from kif_mrg.case_page import readable_name
from kif_mrg.conditions import CONDITIONS
from kif_mrg.diagnosis_scores import confusion
from kif_mrg.evaluated import Evaluated

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]

HEADLINE = {
    "ce_example_f1": "CE-F1", "ce_macro_f1": "macro CE-F1", "bleu4": "BLEU-4", "cider_d": "CIDEr-D",
    "words_mean": "words",
}  # fmt: skip
TEXT = {
    "bleu1": "BLEU-1", "bleu2": "BLEU-2", "bleu3": "BLEU-3", "bleu4": "BLEU-4", "rouge_l": "ROUGE-L",
    "cider_d": "CIDEr-D", "meteor_lite": "METEOR lite", "meteor": "METEOR", "distinct1": "distinct-1",
    "distinct2": "distinct-2", "unique_reports": "unique", "words_sd": "words SD",
}  # fmt: skip
DIFFERENCES = {
    "ce_example_f1": "CE-F1", "ce_macro_f1": "macro CE-F1", "bleu4": "BLEU-4", "rouge_l": "ROUGE-L",
}  # fmt: skip
STATED = {
    "condition": "condition", "references": "positive references", "reports": "positive reports",
    "precision": "precision", "recall": "recall", "f1": "F1", "f1_shuffled": "F1, images shuffled",
}  # fmt: skip
DIAGNOSED = {
    "condition": "condition", "labelled": "labelled", "positive": "positive", "head_accuracy": "accuracy",
    "head_constant": "accuracy of one state", "head_f1": "F1", "head_auc": "AUC",
}  # fmt: skip
HEAD = {"f1_macro": "macro F1", "auc_macro": "macro AUC", "accuracy": "accuracy"}
AVERAGES = ("example", "micro", "macro")
PARTS = {"precision": "P", "recall": "R", "f1": "F1"}
CONFUSIONS = 6  # conditions with a matrix on the page

METHOD = """Reports and references pass through the same normal form (lower case, punctuation apart, \
hyphens joined) before anything is measured. Labeler: {labeler}, on both texts. Numbers of the rule labeler \
and of CheXbert must not be compared. uncertain: {uncertain}; empty: {empty}; references: {reference_mode}.

CE-F1 is example-based: the mean over the reports of the F1 of their positive conditions (14 classes), which \
is what PromptMRG and KIF-ISD publish; macro CE-F1 is the mean over the conditions. {nothing} The row of the \
references themselves shows the highest values that can be reached. The labeler reads neither sides nor \
sizes, so a report with the wrong side can score 1.

BLEU is of the whole corpus without smoothing. CIDEr-D has its own scale of 0 to 10 and takes its document \
frequencies from these references. METEOR lite knows exact and stem matches only; METEOR is the Java program \
and is computed for the model alone, where it is installed. The two must not be compared.

Intervals are percentiles of {replicates} bootstrap replicates that draw whole studies, at {confidence:.0%} \
confidence: they hold the variation of cases, not that of trainings. Differences are paired: both arms are \
measured on the same draws."""

NOTHING = {
    "zero": "A report or condition without a positive on either side counts as 0, as published.",
    "one": "A report or condition without a positive on either side counts as 1, other than published.",
}


def differences(found: Evaluated) -> Iterator[tuple[str, dict[str, Entry]]]:
    """What the model has over each floor, with paired intervals."""
    own = found.scores[floors.MODEL]
    for name, scored in found.scores.items():
        if name != floors.MODEL:
            yield name, own.minus(scored)


def efficacy_readings(found: Evaluated) -> list[Row]:
    """The model's clinical efficacy under every reading of uncertain statements and empty reports."""
    return [
        {"uncertain": uncertain, "empty": empty}
        | {
            f"ce_{average}_f1": clinical_efficacy(
                found.states[floors.MODEL], found.compare.true, uncertain, empty
            )[f"ce_{average}_f1"]
            for average in AVERAGES
        }
        for uncertain in ("negative", "positive")
        for empty in ("zero", "one")
    ]


class EvaluationPage:
    """A report that grows section by section; its figures are also saved as PNG in `folder`."""

    def __init__(self, report: HtmlReport, folder: Path, found: Evaluated) -> None:
        self.report, self.folder, self.found = report, folder, found
        kind = "simulated cohort; " if found.facts["simulated"] else ""
        self.note = f"{kind}split {found.facts['split']}, {found.facts['n_reports']} reports"
        self.entries = {name: scored.entries() for name, scored in found.scores.items()}

    def summary(self) -> None:
        """The model beside its floors."""
        self.report.heading("The model and its floors")
        rows = [*_rows(self.entries, HEADLINE), self._ceiling(HEADLINE)]
        self.report.table(rows, "The model, what it must beat, and what equal reports would reach")
        self.report.table(
            [{"row": _unbroken(name), "what it is": floors.EXPLAINED[name]} for name in self.entries],
            "The rows",
        )
        bars = figures.floor_bars(
            self.entries,
            {"ce_example_f1": "CE-F1 (example)", "bleu4": "BLEU-4"},
            title=f"Model and floors, {CONFIDENCE:.0%} intervals",
            subtitle=self.note,
        )
        self._figure("floors", bars, "Clinical efficacy and BLEU-4 of the model and of each floor")
        rows = [
            {f"{floors.MODEL} minus": _unbroken(name)}
            | {title: _cell(entries[key]) for key, title in DIFFERENCES.items()}
            for name, entries in differences(self.found)
        ]
        self.report.table(rows, "Differences with paired intervals: one that holds 0 shows no advantage")

    def reports(self) -> None:
        """All text metrics and all of clinical efficacy."""
        self.report.heading("Reports as text")
        self.report.table(_rows(self.entries, TEXT), "Text metrics, fractions but for CIDEr-D and words")
        self.report.heading("Clinical efficacy")
        for prefix, what in (
            ("ce", "14 conditions"),
            ("ce5", "the 5 conditions of the CheXpert competition"),
        ):
            names = {
                f"{prefix}_{a}_{part}": f"{a} {short}" for a in AVERAGES for part, short in PARTS.items()
            }
            rows = _rows(self.entries, names, plain=True)
            self.report.table([*rows, self._ceiling(names)], f"Precision, recall and F1, {what}")
        averages = {f"ce_{average}_f1": f"{average} F1" for average in AVERAGES}
        self.report.table(
            _titled(efficacy_readings(self.found), {"uncertain": "uncertain", "empty": "empty"} | averages),
            "The model's F1 under every reading of uncertain statements and of reports without positives",
        )

    def conditions(self, rows: Sequence[Row]) -> None:
        """Condition by condition, reports and diagnosis head."""
        self.report.heading("Conditions")
        stated = [row for row in rows if not np.isnan(row["references"])]
        self.report.table(
            _titled(stated, STATED),
            "In how many references and reports a condition is positive, and how well they agree",
        )
        shown = {"reports": "f1", "diagnosis head": "head_f1", "reports, images shuffled": "f1_shuffled"}
        series = {title: [row[key] for row in stated] for title, key in shown.items() if key in stated[0]}
        names = [readable_name(row["condition"]) for row in stated]
        positives = [row["references"] for row in stated]
        figure = figures.condition_f1(names, positives, series, subtitle=self.note)
        caption = (
            "F1 of being positive; the diagnosis head is measured against the labels of the data set, "
            "the reports against what the labeler finds in the references"
        )
        self._figure("conditions", figure, caption)
        self.report.table(
            _titled([row for row in rows if row["labelled"]], DIAGNOSED),
            "Diagnosis head against the labels of the data set; accuracy of one state: of always naming the "
            "state that is commonest among these labels",
        )

    def diagnosis(self) -> None:
        """The diagnosis head beside its floors."""
        found = self.found
        self.report.heading("Diagnosis head")
        entries = {name: scored.entries() for name, scored in found.diagnosis.items()}
        self.report.table(
            _rows(entries, HEAD), "State accuracy, and macro F1 and AUC over conditions with a positive label"
        )
        self.report.table(
            [{"row": _unbroken(name), "what it is": floors.EXPLAINED[name]} for name in entries], "The rows"
        )
        chosen = _most_varied(found.labels)
        if not chosen:
            return
        matrices = {
            readable_name(CONDITIONS[c]): confusion(found.probs[floors.MODEL], found.labels, c)
            for c in chosen
        }
        caption = (
            f"Cases by label (row) and diagnosed state (column), the {len(chosen)} conditions whose labels "
            "vary most; the shade is the share of the row"
        )
        self._figure("states", figures.state_confusions(matrices, subtitle=self.note), caption)

    def lengths(self) -> None:
        """How long the reports are."""
        self.report.heading("Length")
        said, true = self.found.reports[floors.MODEL], self.found.compare.references
        figure = figures.report_lengths(said, true, subtitle=self.note)
        self._figure("lengths", figure, "Words of reports and references")

    def method(self) -> None:
        """How the numbers came about."""
        facts = self.found.facts
        self.report.heading("How it was computed")
        replicates = facts["bootstrap"]["replicates"]
        self.report.paragraph(
            METHOD.format(
                **facts, nothing=NOTHING[facts["empty"]], confidence=CONFIDENCE, replicates=replicates
            )
        )

    def _ceiling(self, metrics: Mapping[str, str]) -> Row:
        ceiling = self.found.compare.ceiling
        known = {title: ceiling[key] for key, title in metrics.items() if key in ceiling}
        return {"": _unbroken("the references themselves"), **known}

    def _figure(self, name: str, figure: Figure, caption: str) -> None:
        self.report.figure(save_figure(figure, self.folder / f"{name}.png"), caption)


def _rows(
    arms: Mapping[str, Mapping[str, Entry]], metrics: Mapping[str, str], plain: bool = False
) -> list[Row]:
    """A row per arm; intervals are shown beside the values unless `plain`."""
    known = {key: title for key, title in metrics.items() if any(key in arm for arm in arms.values())}
    return [
        {"": _unbroken(name)} | {title: _cell(arm.get(key), plain) for key, title in known.items()}
        for name, arm in arms.items()
    ]


def _cell(entry: Entry | None, plain: bool = False) -> Any:
    if entry is None:
        return None
    if plain or np.isnan(entry["low"]):
        return entry["value"]
    return _unbroken(with_interval(entry))


def _unbroken(text: str) -> str:
    """Tables that are wider than the page scroll, so their cells need not break."""
    return text.replace(" ", "\u00a0")


def _titled(rows: Sequence[Row], columns: Mapping[str, str]) -> list[Row]:
    return [{title: _named(row[key]) for key, title in columns.items() if key in row} for row in rows]


def _named(value: Any) -> Any:
    return readable_name(value) if isinstance(value, str) else value


def _most_varied(labels: Any) -> list[int]:
    """The conditions whose commonest state is the rarest among their known labels, in their order."""
    shares = {}
    for c in range(labels.shape[1]):
        known = labels[labels[:, c] >= 0, c]
        if len(known) and len(set(known.tolist())) > 1:
            shares[c] = np.bincount(known).max() / len(known)
    return sorted(sorted(shares, key=lambda c: shares[c])[:CONFUSIONS])
