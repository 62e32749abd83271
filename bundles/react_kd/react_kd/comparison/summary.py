"""From the results of all runs to one table per regime, figures, a Markdown file and an HTML report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from medbundles.atomic import write_text
from medbundles.figures import comparison_forest
from medbundles.report import HtmlReport, save_figure
from medbundles.resampling import paired_difference
from medbundles.tables import markdown_table

from react_kd.comparison.plan import ABLATIONS, DOSES, METHODS, REGIMES, Budget, Run, runs
from react_kd.figures import dose_curve, modality_bars

Results = Mapping[Run, Mapping[str, float]]
Row = dict[str, Any]
NOTE = (
    "Simulated cohort, not patients. Every run trains on its own fold of its seed's cohort and is "
    "tested on one independent test cohort. AUC is macro one-vs-rest of the student with CT alone at "
    "full dose unless named otherwise. Differences are paired over runs, with 95 % t intervals; runs of "
    "one seed share cases, so they are somewhat too narrow. Dose loss: AUC at full dose minus the mean "
    "over the reduced doses (beer_lambert). PET loss: AUC with PET/CT minus AUC with CT alone."
)


def write_summary(folder: Path, budget: Budget) -> Path:
    """Write `comparison.md`, figures and `comparison.html` of all complete (seed, fold) pairs.

    Raises:
        ValueError: no pair is complete.
    """
    results = _complete(folder, budget)
    teachers = {
        path.stem: json.loads(path.read_text()) for path in sorted((folder / "teachers").glob("*.json"))
    }
    n_runs = len(_pairs(results))
    planned = f"{budget.seeds} seeds x {budget.folds} folds"
    size = f"{n_runs} runs per method and regime ({planned} planned), {budget.test} test cases"
    page = HtmlReport("REACT-KD comparison", size)
    page.paragraph(NOTE)
    text = [NOTE, "", size, ""]
    page.heading("Teachers")
    strength = [
        {"teacher": name, **{f"test AUC {k}": v for k, v in t["test"].items()}}
        for name, t in teachers.items()
    ]
    page.table(strength, "Macro AUC of the teachers on the test cohort")
    text += ["Teachers, macro AUC on the test cohort:", "", markdown_table(strength), ""]
    for regime, what in REGIMES.items():
        rows = [_row(results, regime, method) for method in _methods(results, regime)]
        page.heading(what.title)
        page.table(rows, f"{what.title}: mean and sd over runs; difference in AUC to ce and to kd")
        text += [f"**{what.title}** (`{regime}`)", "", markdown_table(rows), ""]
        for name, figure in _figures(results, budget, regime).items():
            page.figure(save_figure(figure, folder / f"{regime}_{name}.png"), f"{what.title}: {name}")
    forest = _forest(results, n_runs)
    page.heading("Differences to plain training")
    page.figure(save_figure(forest, folder / "differences.png"), "Difference in macro AUC to ce")
    write_text(folder / "comparison.md", "\n".join(text))
    return Path(page.save(folder / "comparison.html"))


def _methods(results: Results, regime: str) -> list[str]:
    present = {run.method for run in results if run.regime == regime}
    return [method for method in (*METHODS, *ABLATIONS) if method in present]


def _complete(folder: Path, budget: Budget) -> dict[Run, dict[str, float]]:
    """Results of the (seed, fold) pairs with every run, so that methods are compared on equal runs."""
    planned = runs(budget)
    files = {run: folder / "runs" / f"{run.name}.json" for run in planned}
    unfinished = {(run.seed, run.fold) for run in planned if not files[run].is_file()}
    done = [run for run in planned if (run.seed, run.fold) not in unfinished]
    if not done:
        raise ValueError(f"{folder} holds no (seed, fold) pair with all of its runs")
    return {run: json.loads(files[run].read_text()) for run in done}


def _pairs(results: Results) -> list[tuple[int, int]]:
    return sorted({(run.seed, run.fold) for run in results})


def _values(results: Results, regime: str, method: str, metric: str) -> np.ndarray:
    """One value per run, in the same order for all methods."""
    rows = [results[Run(regime, seed, fold, method)] for seed, fold in _pairs(results)]
    if metric == "dose_loss":
        low = [f"auc_ct_{level:g}" for level in DOSES if level is not None]
        return np.array([row["auc_ct"] - np.mean([row[key] for key in low]) for row in rows])
    if metric == "pet_loss":
        return np.array([row["auc_petct"] - row["auc_ct"] for row in rows])
    return np.array([row[metric] for row in rows], dtype=float)


def _row(results: Results, regime: str, method: str) -> Row:
    def spread(metric: str) -> str:
        values = _values(results, regime, method, metric)
        return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"

    def against(reference: str) -> str:
        if method == reference:
            return ""
        mine, theirs = (_values(results, regime, m, "auc_ct") for m in (method, reference))
        d = paired_difference(mine, theirs)
        return f"{d['mean']:+.3f} [{d['t_low']:+.3f}, {d['t_high']:+.3f}]"

    return {
        "method": method, "AUC": spread("auc_ct"), "minus ce": against("ce"), "minus kd": against("kd"),
        "accuracy": spread("accuracy"), "F1": spread("f1"), "ECE": spread("ece"),
        "AUC PET/CT": spread("auc_petct"), "dose loss": spread("dose_loss"), "PET loss": spread("pet_loss"),
    }  # fmt: skip


def _interval(values: np.ndarray) -> tuple[float, float, float]:
    d = paired_difference(values, np.zeros_like(values))
    return float(d["mean"]), float(d["t_low"]), float(d["t_high"])


def _figures(results: Results, budget: Budget, regime: str) -> dict[str, Any]:
    names = ["auc_ct" if level is None else f"auc_ct_{level:g}" for level in DOSES]
    curves, bars = {}, {}
    for method in METHODS:
        curves[method] = np.array([_interval(_values(results, regime, method, n)) for n in names])
        conditions = ("auc_petct", "auc_ct", "auc_pet")
        bars[method] = np.array([_interval(_values(results, regime, method, n)) for n in conditions])
    levels = ["full" if level is None else level for level in DOSES]
    subtitle = f"{REGIMES[regime].title}; simulated cohort; mean and 95 % interval over runs"
    return {
        "dose": dose_curve(levels, curves, noise_model="beer_lambert", n=budget.test, subtitle=subtitle),
        "modality": modality_bars(
            ["PET/CT", "CT alone", "PET alone"], bars, n=budget.test, subtitle=subtitle
        ),
    }


def _forest(results: Results, n_runs: int) -> Any:
    differences = {
        REGIMES[regime].title: {
            method: _interval(
                _values(results, regime, method, "auc_ct") - _values(results, regime, "ce", "auc_ct")
            )
            for method in _methods(results, regime)
            if method != "ce"
        }
        for regime in REGIMES
    }
    return comparison_forest(
        differences, reference="ce", n_runs=n_runs, subtitle="simulated cohort; CT alone"
    )
