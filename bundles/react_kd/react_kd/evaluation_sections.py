"""The sections of an evaluation's page: tables and figures over the rows of `evaluation.measure`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from medbundles.report import HtmlReport, save_figure
from numpy.typing import ArrayLike

from react_kd import figures
from react_kd.metrics import value_and_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]

MODALITIES = {"petct": "CT + PET", "ct": "CT alone", "pet": "PET alone"}
HEADLINE = {"auc_macro": "macro AUC", "accuracy": "accuracy", "f1": "F1", "brier": "Brier", "ece": "ECE"}


def interval(row: Row, metric: str) -> str:
    """`0.812 [0.741, 0.879]`, or a dash where the metric is not defined."""
    value, low, high = value_and_interval(row, metric)
    if np.isnan(value):
        return "–"
    return f"{value:.3f}" if np.isnan(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def title_of(row: Row) -> str:
    """The network and what it was given, in words."""
    if row["photons"] is not None:
        return f"{row['network']}, CT at {row['photons']:,.0f} photons"
    some = f" ({row['cases']})" if row["condition"] == "ct" and row["cases"] != "all" else ""
    return f"{row['network']}, {MODALITIES[row['condition']]}{some}"


class EvaluationPage:
    """A report that grows section by section; its figures are also saved as PNG in `folder`.

    Args:
        report: gets the sections.
        folder: gets the figures.
        results: rows of `evaluation.measure`, the student with CT alone first.
        note: stands under the title of every figure and says whose cases they are.
    """

    def __init__(self, report: HtmlReport, folder: Path, results: Sequence[Row], note: str) -> None:
        self.report, self.folder, self.results, self.note = report, folder, results, note
        self.networks = list(dict.fromkeys(row["network"] for row in results))
        self.pet_cases = next((row["cases"] for row in results if "pet" in row["streams"]), "")

    def summary(self) -> None:
        """What each network reaches at full dose."""
        self.report.heading("Summary")
        rows = [row for row in self.results if row["photons"] is None]
        self.report.table([_row(row, HEADLINE) for row in rows], "CT at full dose")

    def student(self, probs: ArrayLike, labels: ArrayLike) -> None:
        """The student with CT alone, from its probabilities (N, K) and the grades (N,)."""
        row, note = self.results[0], f"{self.note}; student, CT alone, full dose"
        self.report.heading("The student with CT alone")
        names = _names(row["classes"])
        columns = ("value", "low", "high")
        rows = [
            {"metric": title} | dict(zip(columns, value_and_interval(row, metric), strict=True))
            for metric, title in names.items()
        ]
        confidence = f"{row['bootstrap']['confidence']:.0%}"
        self.report.table(rows, f"CT at full dose, n = {row['n_cases']}; limits of the {confidence} interval")
        self._figure("roc", figures.roc(probs, labels, row, subtitle=note), "Discrimination")
        matrix = figures.confusion(row["confusion"], row["classes"], subtitle=note)
        self._figure("confusion", matrix, "True and predicted grades")
        self._figure(
            "reliability", figures.reliability(row, subtitle=note), "Calibration of the predicted grade"
        )
        curve = {"student, CT alone": row["decision_curve"]}
        figure = figures.decision_curve(curve, n=row["n_cases"], subtitle=note)
        self._figure("decision_curve", figure, "Net benefit of acting on the student's probabilities")

    def modalities(self) -> None:
        """CT with PET, CT alone and PET alone, on the cases that have a PET."""
        self.report.heading("Missing modalities")
        if not self.pet_cases:
            self.report.paragraph("No case of this split has a PET.")
            return
        rows = {
            (network, condition): self._find(network, condition, self.pet_cases)
            for network in self.networks
            for condition in MODALITIES
        }
        measured = [row for row in rows.values() if row]
        n, note = measured[0]["n_cases"], f"{self.note}; cases with PET, CT at full dose"
        series = {name: [_auc(rows[name, condition]) for condition in MODALITIES] for name in self.networks}
        bars = figures.modality_bars(list(MODALITIES.values()), series, n=n, subtitle=note)
        alone = " The teacher has no stream without CT." if "teacher" in self.networks else ""
        self._figure("modalities", bars, f"Macro AUC on the {n} cases with a PET.{alone}")
        curves = {
            f"{network}, {MODALITIES[condition]}": row["decision_curve"]
            for (network, condition), row in rows.items()
            if row
        }
        figure = figures.decision_curve(curves, n=n, subtitle=note)
        self._figure("decision_curve_modalities", figure, f"Net benefit on the {n} cases with a PET")

    def doses(self) -> None:
        """CT alone at every dose, for each noise model by itself."""
        self.report.heading("CT dose")
        models = dict.fromkeys(row["noise_model"] for row in self.results if row["photons"] is not None)
        if not models:
            self.report.paragraph("No dose level was asked for.")
        for model in models:
            sweep = {network: self._sweep(network, model) for network in self.networks}
            table = [_row(row, HEADLINE) for rows in sweep.values() for row in rows]
            self.report.table(
                table, f"CT alone by photons per ray, noise model {model}; noise model none is the full dose"
            )
            levels = ["full" if row["photons"] is None else row["photons"] for row in sweep["student"]]
            series = {f"{name}, CT alone": [_auc(row) for row in rows] for name, rows in sweep.items()}
            n = self.results[0]["n_cases"]
            curve = figures.dose_curve(levels, series, noise_model=model, n=n, subtitle=self.note)
            self._figure(f"dose_{model}", curve, f"Macro AUC by photons per ray, noise model {model}")

    def everything(self) -> None:
        """Every network under every condition, class by class."""
        self.report.heading("Every condition")
        names = _names(self.results[0]["classes"])
        self.report.table([_row(row, names) for row in self.results], "All metrics; AUC with its interval")

    def _sweep(self, network: str, model: str) -> list[Row]:
        mine = [row for row in self.results if row["network"] == network and row["cases"] == "all"]
        return [row for row in mine if row["condition"] == "ct" or row["noise_model"] == model]

    def _find(self, network: str, condition: str, cases: str) -> Row | None:
        wanted = (network, condition, cases)
        return next((r for r in self.results if (r["network"], r["condition"], r["cases"]) == wanted), None)

    def _figure(self, name: str, figure: Figure, caption: str) -> None:
        self.report.figure(save_figure(figure, self.folder / f"{name}.png"), caption)


def _row(row: Row, metrics: Mapping[str, str]) -> Row:
    """Cells of one result: network and input, noise model, cases, the AUCs with intervals, other metrics."""
    cells: Row = {"network, input": title_of(row), "noise model": row["noise_model"], "n": row["n_cases"]}
    for metric, title in metrics.items():
        is_auc = metric.startswith("auc_")
        cells[title] = interval(row, metric) if is_auc else row["metrics"][metric]["value"]
    # Tables that are wider than the page scroll, so their cells need not break.
    return {
        title: cell.replace(" ", "\u00a0") if isinstance(cell, str) else cell for title, cell in cells.items()
    }


def _names(classes: Sequence[str]) -> dict[str, str]:
    aucs = {"auc_macro": "macro AUC", "auc_micro": "micro AUC", **{f"auc_{c}": f"AUC {c}" for c in classes}}
    scores = ("accuracy", "precision", "recall")
    return aucs | dict(zip(scores, scores, strict=True)) | {"f1": "F1", "brier": "Brier", "ece": "ECE"}


def _auc(row: Row | None) -> tuple[float, float, float]:
    return value_and_interval(row, "auc_macro") if row else (np.nan, np.nan, np.nan)
